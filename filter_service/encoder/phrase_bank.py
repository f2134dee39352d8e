"""The phrase bank: about a thousand noun phrases, from ImageNet's class names."""

import re

from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES

_LIKE_YOU_OR_ONE = re.compile(r"eu|one\b|uni", re.IGNORECASE)  # a European, a unicycle
_LIKE_A_VOWEL = re.compile(r"[aeiou]|hour", re.IGNORECASE)  # an hourglass
_BARE = frozenset(
    {  # plural
        *("binoculars", "clogs", "jeans", "mashed potatoes", "pajamas", "parallel bars"),
        *("sunglasses", "swim trunks / shorts", "tights"),
        # what is not counted
        *("broccoli", "carbonara", "chain mail", "chocolate syrup", "consomme", "corn", "dough"),
        *("eggnog", "face powder", "guacamole", "hair spray", "hay", "rapeseed", "red wine"),
        *("sunscreen", "toilet paper", "velvet fabric", "wool"),
    }
)


def phrases() -> list[str]:
    """About a thousand noun phrases with their article: the class names of ImageNet."""
    return [named(name) for name in dict.fromkeys(IMAGENET_CLASSNAMES)]


def named(noun: str) -> str:
    """The noun with the article of its sound; plurals and what is not counted have none."""
    if noun in _BARE:
        return noun
    vowel = _LIKE_A_VOWEL.match(noun) and not _LIKE_YOU_OR_ONE.match(noun)
    return f"{'an' if vowel else 'a'} {noun}"
