"""Places: the line of a key, against a slow and plain search."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ripieno.config.places import find_line, holds, split_key, trim

TEXT = (
    """# a comment
home = "x"

[gateway]
aliases = { fast = "auto" }
port = [
  1,
  2,
]

[workers."gpt-4.1"]
provider = """
    "'''\n[not.a.table]\n'''"
    """
[workers."gpt-4.1".options]
system = "s"
[[list]]
a = 1
"""
)


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("home",), 2),
        (("gateway",), 4),
        (("gateway", "aliases", "fast"), 5),
        (("gateway", "port"), 6),
        (("workers",), 11),
        (("workers", "gpt-4.1", "provider"), 12),
        (("workers", "gpt-4.1", "options", "system"), 16),
        (("list",), 17),
        (("not",), None),
        (("gateway", "host"), None),
    ],
)
def test_a_key_is_found_on_the_line_where_it_begins(path: tuple[str, ...], line: int | None) -> None:
    assert find_line(TEXT, path) == line


def test_a_dotted_key_is_split_by_what_the_tree_holds() -> None:
    tree = tomllib.loads(TEXT)
    assert split_key(tree, "workers.gpt-4.1.options.system") == ("workers", "gpt-4.1", "options", "system")
    assert split_key(tree, "workers.gpt-4.1.privacy") == ("workers", "gpt-4.1")
    assert split_key(tree, "nowhere.at.all") == ()
    assert trim(tree, ("gateway", "port", 0)) == ("gateway", "port")
    assert trim(tree, ("nowhere",)) == ()
    assert not holds(tree, ("home", "deeper"))


@given(
    names=st.lists(st.from_regex(r"[a-z]{1,4}", fullmatch=True), min_size=1, max_size=12, unique=True),
    gaps=st.lists(st.integers(0, 2), min_size=12, max_size=12),
)
def test_every_key_of_a_flat_file_is_found(names: list[str], gaps: list[int]) -> None:
    lines: list[str] = []
    places = {}
    for name, gap in zip(names, gaps, strict=False):
        lines += [""] * gap + [f"{name} = 1"]
        places[name] = len(lines)
    assert {name: find_line("\n".join(lines), (name,)) for name in names} == places


def test_the_domain_loads_its_names_when_asked_and_knows_no_other() -> None:
    import ripieno.domain as domain

    assert all(getattr(domain, name) is not None for name in domain.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        domain.Nothing  # noqa: B018  # asking is the test
