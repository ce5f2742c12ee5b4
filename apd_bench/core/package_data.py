"""Where the package's own data lies: suites, recipes, published and expected values, the embedded models and sets."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def package_path(*parts: str) -> Path:
    """A file or folder inside the installed package."""
    return _PACKAGE.joinpath(*parts)


def baselines_path(*parts: str) -> Path:
    """A file or folder of `baselines/`: inside the wheel, or beside the package in a source tree."""
    inside = _PACKAGE / "baselines"
    root = inside if inside.is_dir() else _PACKAGE.parent / "baselines"
    return root.joinpath(*parts)
