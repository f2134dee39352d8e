"""The SQL of the nearest-neighbour search."""

from sqlalchemy import text

# Every query below has one good plan, which is to follow an index; without these the planner may
# take a rough estimate for a reason to sort the whole table.
PLAN = text("""
    SELECT set_config('enable_seqscan', 'off', true), set_config('enable_sort', 'off', true),
           set_config('hnsw.iterative_scan', 'strict_order', true),
           set_config('hnsw.ef_search', '200', true),
           set_config('hnsw.max_scan_tuples', '20000', true)
""")

# What moderators said of a neighbour for this class; lists that decide do not speak here.
_DECISION = """
    (SELECT CASE WHEN NOT sampled THEN decision
                 WHEN decision = 'confirmed' THEN 'rightly clear' ELSE 'missed' END
     FROM review_outcomes
     WHERE image_id = nearest.image_id AND class_name = :class_name AND review_id IS NOT NULL
     ORDER BY at DESC LIMIT 1)
"""

# What is locked away may be kept, under a legal hold: nothing is found near it.
_OPEN = """
    WHERE NOT EXISTS (SELECT FROM sealed_items WHERE sealed_items.image_id = nearest.image_id)
"""

FEW_QUERY = f"""
    WITH side AS MATERIALIZED (
        SELECT image_id, frame, view, margin FROM scores
        WHERE encoder_id = {{encoder}} AND class_id = {{class_id}} AND margin {{compared}} :bound
        ORDER BY margin {{order}} LIMIT {{few}}
    )
    SELECT images.digest, halfvec_send(vector), vector_send(exact_vector), margin, {_DECISION}
    FROM (
        SELECT side.image_id, margin, vector, exact_vector
        FROM side CROSS JOIN LATERAL (
            SELECT vector, exact_vector FROM embeddings
            WHERE encoder_id = {{encoder}} AND image_id = side.image_id
              AND frame = side.frame AND view = side.view
            LIMIT 1
        ) AS embedding
        ORDER BY vector <=> :z LIMIT :limit
    ) AS nearest JOIN images ON images.id = image_id {_OPEN}
"""

_WALK = """
    SELECT image_id, frame, view, vector, exact_vector, vector::halfvec({dim}) <=> :z AS distance
    FROM embeddings WHERE encoder_id = {encoder} {among}
    ORDER BY vector::halfvec({dim}) <=> :z
"""

MANY_QUERY = f"""
    SELECT images.digest, halfvec_send(vector), vector_send(exact_vector), margin, {_DECISION}
    FROM (
        SELECT walk.image_id, margin, vector, exact_vector
        FROM ({_WALK}) AS walk CROSS JOIN LATERAL (
            SELECT margin FROM scores
            WHERE encoder_id = {{encoder}} AND class_id = {{class_id}}
              AND image_id = walk.image_id AND frame = walk.frame
              AND view = walk.view AND margin {{compared}} :bound
            LIMIT 1
        ) AS score
        ORDER BY distance LIMIT :limit
    ) AS nearest JOIN images ON images.id = image_id {_OPEN}
"""

_SHOWN = """
    SELECT images.digest, frame, view, 1 - distance, open
    FROM (
        SELECT *, NOT EXISTS (
            SELECT FROM sealed_items WHERE sealed_items.image_id = met.image_id
        ) AS open
        FROM ({met}) AS met
    ) AS nearest JOIN images ON images.id = image_id
"""

SEARCH_QUERY = _SHOWN.replace("{met}", f"{_WALK} LIMIT :limit")

# Of a client's own images: walked past those of others, or read one by one where they are rare.
OWN_ONLY = """
    AND EXISTS (
        SELECT FROM items WHERE client_id = :client AND items.image_id = embeddings.image_id
    )
"""

_READ = """
    SELECT image_id, frame, view, vector::halfvec({dim}) <=> :z AS distance
    FROM (
        SELECT DISTINCT image_id FROM items
        WHERE client_id = :client AND image_id IS NOT NULL ORDER BY image_id DESC LIMIT :own
    ) AS own JOIN embeddings USING (image_id)
    WHERE encoder_id = {encoder} ORDER BY distance LIMIT :limit
"""

EACH_QUERY = _SHOWN.replace("{met}", _READ)

NEAR_QUERY = f"""
    SELECT image_id, 1 - min(distance) FROM ({_WALK} LIMIT :limit) AS nearest {_OPEN}
    GROUP BY image_id
"""

AMONG_QUERY = f"""
    SELECT image_id, 1 - min(vector <=> :z) FROM embeddings AS nearest {_OPEN}
    AND encoder_id = {{encoder}} AND image_id = ANY(:images) GROUP BY image_id
"""

PHRASES_QUERY = """
    SELECT text, vector_send(vector) FROM phrases
    WHERE encoder_id = :encoder AND :scale * -(vector <#> :z) {compared} :level
    ORDER BY vector <=> :near LIMIT :limit
"""
