"""The phrase bank speaks English: every article goes by the sound, and what is many has none."""

from filter_service.encoder import phrases

PLURAL = {
    *("binoculars", "clogs", "jeans", "mashed potatoes", "pajamas", "parallel bars", "sunglasses"),
    *("swim trunks / shorts", "tights"),
}
UNCOUNTABLE = {
    *("broccoli", "carbonara", "chain mail", "chocolate syrup", "consomme", "corn", "dough"),
    *("eggnog", "face powder", "guacamole", "hair spray", "hay", "rapeseed", "red wine"),
    *("sunscreen", "toilet paper", "velvet fabric", "wool"),
}
A_BEFORE_A_VOWEL = {  # which sounds like "you" or "won"
    *("European green lizard", "European garden spider", "European polecat"),
    *("one-piece bathing suit", "unicycle"),
}
AN_BEFORE_A_CONSONANT = {"hourglass"}  # which is silent
ENDS_LIKE_A_PLURAL = {  # and is one thing
    *("triceratops", "platypus", "chambered nautilus", "albatross", "Malinois", "praying mantis"),
    *("hippopotamus", "black-and-white colobus", "abacus", "beer glass", "cuirass", "hourglass"),
    *("loupe magnifying glass", "magnetic compass", "minibus", "school bus", "trolleybus"),
    *("coral fungus", "earth star fungus"),
}


def nouns(article: str) -> set[str]:
    return {p.removeprefix(f"{article} ") for p in phrases() if p.startswith(f"{article} ")}


def test_every_article_goes_by_the_sound() -> None:
    assert {n for n in nouns("a") if n[0].lower() in "aeiou"} == A_BEFORE_A_VOWEL
    assert {n for n in nouns("an") if n[0].lower() not in "aeiou"} == AN_BEFORE_A_CONSONANT


def test_what_is_many_or_is_not_counted_has_no_article() -> None:
    bare = set(phrases()) - {f"{a} {n}" for a in ("a", "an") for n in nouns(a)}
    assert bare == PLURAL | UNCOUNTABLE


def test_whatever_ends_in_s_and_has_an_article_is_one_thing() -> None:
    assert {n for n in nouns("a") | nouns("an") if n.endswith("s")} == ENDS_LIKE_A_PLURAL
