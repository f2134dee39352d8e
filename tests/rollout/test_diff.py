"""Two versions side by side, field by field."""

from filter_service.policy import ForbiddenClass, Policy
from filter_service.rollout.diff import Change, DiffLine, differ, read

GUN = ForbiddenClass(name="gun", prompts=("a gun",), threshold=0.5)
OLD = Policy(name="shop", neutral=("a wall",), classes=(GUN,))
NEW = OLD.model_copy(
    update={"classes": (GUN.model_copy(update={"look_alikes": ("a toy gun", "a drill")}),)}
)


def lines(section: tuple[DiffLine, ...]) -> dict[str, DiffLine]:
    return {line.field: line for line in section}


def test_look_alikes_that_are_new_stand_beside_nothing() -> None:
    line = lines(differ(OLD, NEW).classes[0].lines)["look-alikes"]
    assert [(v.text, v.change) for v in line.new] == [
        ("a toy gun", Change.ADDED),
        ("a drill", Change.ADDED),
    ]
    assert not line.old


def test_a_version_without_look_alikes_does_not_speak_of_them() -> None:
    assert "look-alikes" in lines(read(NEW).classes[0].lines)
    assert "look-alikes" not in lines(read(OLD).classes[0].lines)
