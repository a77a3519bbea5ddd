"""FeatureSchema: a predictor reads the features that it was trained on, and no others."""

from dataclasses import replace

import pytest

from ripieno.domain import FeatureSchema

WHOLE = FeatureSchema(encoder="static", width=256, terms=8192, shape=("length", "lines"), tool_shape=("count",))


def test_a_name_tells_the_parts_with_their_sizes_and_marks_the_names_of_scalars() -> None:
    encoder, terms, shape, tools = WHOLE.name.split("+")
    assert (encoder, terms) == ("static/256", "terms/8192")
    assert shape.startswith("shape/2-")
    assert tools.startswith("tools/1-")
    assert replace(WHOLE, shape=("lines", "length")).name != WHOLE.name
    assert replace(WHOLE, shape=("", "")).name.split("+")[2] == "shape/2"
    assert FeatureSchema(encoder="e", width=3).name == "e/3"


@pytest.mark.parametrize(
    "other",
    [
        replace(WHOLE, encoder="onnx"),
        replace(WHOLE, width=384),
        replace(WHOLE, terms=4096),
        replace(WHOLE, shape=("length", "lines", "digits")),
        replace(WHOLE, shape=("lines", "length")),
        replace(WHOLE, tool_shape=()),
        replace(WHOLE, tool_shape=None),
    ],
)
def test_other_features_do_not_fit(other: FeatureSchema) -> None:
    assert WHOLE.fits(WHOLE)
    assert not WHOLE.fits(other)


def test_parts_that_are_not_read_or_not_recorded_fit_by_what_is_known() -> None:
    unnamed = replace(WHOLE, shape=("", ""), tool_shape=("",))
    assert unnamed.fits(WHOLE)
    assert not unnamed.fits(replace(WHOLE, shape=("length", "lines", "digits")))
    heads = FeatureSchema(encoder="static", width=256)
    assert heads.fits(WHOLE)
    assert heads.fits(replace(WHOLE, shape=("other",)))
    assert not WHOLE.fits(heads)
