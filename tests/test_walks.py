import pytest
from sqlalchemy import text
pytest_plugins = ["tests.console_fixtures"]
def test_look(world):
    with world.sessions.begin() as s:
        for r in s.execute(text("select i.id,i.source,i.verdict,i.reason,c.name,i.margin, i.probability from items i left join policy_classes c on c.id=i.class_id order by i.id")): print(tuple(r))
        for r in s.execute(text("select e.item_id,c.name,e.faithful from explanations e join policy_classes c on c.id=e.class_id order by 1")): print(tuple(r))
        for r in s.execute(text("select item_id,stage,margin,class_name,severity from review_cases order by severity desc, margin desc")): print(tuple(r))
