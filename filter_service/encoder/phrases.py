"""The phrase bank: things that a prompt could have named instead."""

from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES


def phrases() -> list[str]:
    """About a thousand noun phrases with their article: the class names of ImageNet."""
    return [
        f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"
        for name in dict.fromkeys(IMAGENET_CLASSNAMES)
    ]
