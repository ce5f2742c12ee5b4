"""Turns the file name of an icon into the concept it draws."""

STYLE_WORDS = frozenset(
    """outline outlined outlines line linear filled fill solid bold thin light regular medium duotone twotone two tone
    rounded round roundish sharp sharpened broken bulk stroke line-duotone mini micro small large big tiny xs sm md lg
    xl icon glyph color colored colour flat pixel poly mono monochrome black white dark alt alternate alternative
    variant version new simple simple1 basic classic plain minimal straight curved curvy circle circled square squared
    block remix free pro ios android logo badge sticker freehand sign symbol side front frontal view image picture
    emoji face head one single 0 1 2 3 4 5 6 7 8 9 10 12 14 15 16 18 20 22 24 28 30 32 36 40 48 50 64 100 128 256 512
    01 02 03 04 05 06 07 08 09 i ii iii a b c d o s f of the""".split()  # noqa: SIM905
)


def concept_of(icon: str) -> tuple[str, ...]:
    """The words of an icon's name without the style words at both ends; empty if nothing is left."""
    words = [word for word in icon.lower().replace("_", "-").replace(" ", "-").split("-") if word]
    while words and (words[-1] in STYLE_WORDS or words[-1].isdigit()):
        words.pop()
    while words and (words[0] in STYLE_WORDS or words[0].isdigit()):
        words.pop(0)
    if words:
        stem = words[-1].rstrip("0123456789")
        if len(stem) > 2:
            words[-1] = stem
    return tuple(words)


def contains(words: tuple[str, ...], part: tuple[str, ...]) -> bool:
    """Whether `part` occurs in `words` as consecutive words."""
    return any(words[i : i + len(part)] == part for i in range(len(words) - len(part) + 1))
