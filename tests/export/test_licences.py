from __future__ import annotations

import pytest

from tuneloop.config.exporting import ExportConfig
from tuneloop.export.identity import BaseModel, front_matter
from tuneloop.export.licences import licence_chain, spdx
from tuneloop.export.sbom import packages


def base(licence: str | None) -> BaseModel:
    return BaseModel("org/model", "org/model", None, "0" * 16, licence)


@pytest.mark.parametrize(
    ("stated", "written"),
    [
        ("apache-2.0", "Apache-2.0"),
        ("mit OR Apache-2.0", "MIT OR Apache-2.0"),
        ("llama3.1", "llama3.1"),
        ("((", "(("),
        ("our own <terms>", "our own <terms>"),
        (None, None),
    ],
)
def test_a_licence_is_written_as_spdx_does_where_spdx_knows_it(stated: str | None, written: str | None) -> None:
    assert spdx(stated) == written


def test_an_export_takes_over_the_base_models_licence_unless_its_own_is_given() -> None:
    inherited = licence_chain(base("apache-2.0"), ExportConfig(), "export")[-1]
    assert (inherited.licence, inherited.stated_in) == ("Apache-2.0", "taken over from the base model")
    own = licence_chain(base("apache-2.0"), ExportConfig(licence="LicenseRef-internal"), "export")[-1]
    assert (own.licence, own.stated_in) == ("LicenseRef-internal", "export.licence")


def test_what_nobody_states_is_said_to_be_unknown() -> None:
    chain = licence_chain(base(None), ExportConfig(), "export")
    assert [(link.what, link.licence, link.stated_in) for link in chain] == [
        ("base model", None, "not stated"),
        ("training data", None, "not stated"),
        ("this export", None, "not stated"),
    ]


@pytest.mark.parametrize("card", ["no metadata", "---\nlicense: mit", "---\n[a\n---\nx", "---\n- a\n---\nx", ""])
def test_a_card_without_readable_metadata_states_nothing(card: str) -> None:
    assert front_matter(card) == ({}, card)


def test_a_cards_metadata_and_text_are_told_apart() -> None:
    assert front_matter("---\nlicense: mit\n---\n\n# A model\n") == ({"license": "mit"}, "# A model\n")


def test_the_packages_of_a_bill_are_those_that_tuneloop_needs_directly_or_not() -> None:
    found = packages()
    assert {"tuneloop", "torch", "huggingface-hub", "markupsafe"} <= found.keys()  # the last through jinja2
    assert "pytest" not in found
