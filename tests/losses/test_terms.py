"""Sums of losses as text."""

import pytest

from segjax.losses.terms import CROSS_ENTROPY, Term, parse_aux_terms, parse_terms, term_names


@pytest.mark.parametrize(
    "text, terms",
    [
        ("cross_entropy", CROSS_ENTROPY),
        (" lovasz ", (Term(1.0, "lovasz_softmax"),)),
        ("0.5 * dice()", (Term(0.5, "dice"),)),
        ("dice * 2", (Term(2.0, "dice"),)),
        (
            "cross_entropy(label_smoothing=0.1, divide_by=weights) + 0.5*lovasz",
            (
                Term(1.0, "cross_entropy", (("label_smoothing", 0.1), ("divide_by", "weights"))),
                Term(0.5, "lovasz_softmax"),
            ),
        ),
        (
            "2 * (dice(smooth=1, squared=True) + .25 * ohem(min_kept=1e3))",
            (
                Term(2.0, "dice", (("smooth", 1.0), ("squared", True))),
                Term(0.5, "ohem", (("min_kept", 1000),)),
            ),
        ),
        (
            "focal(alpha=None) + focal(gamma=3, alpha=0.25, activation='sigmoid')",
            (
                Term(1.0, "focal", (("alpha", None),)),
                Term(1.0, "focal", (("gamma", 3.0), ("alpha", 0.25), ("activation", "sigmoid"))),
            ),
        ),
    ],
)
def test_terms(text, terms):
    assert parse_terms(text) == terms
    assert hash(terms) == hash(parse_terms(text))


def test_options_have_their_types_and_defaults():
    (term,) = parse_terms("ohem(threshold=1, min_kept=5)")
    assert type(term.option("threshold")) is float
    assert type(term.option("min_kept")) is int
    assert term.option("divide_by") == "kept"


def test_names_of_terms():
    terms = parse_terms("dice + focal + 2 * dice(smooth=1) + dice(smooth=2)")
    assert term_names(terms) == ("dice", "focal", "dice_2", "dice_3")


@pytest.mark.parametrize(
    "text, message",
    [
        ("", r"loss\.terms='' cannot be read; write a sum such as .* of cross_entropy, focal, "),
        ("dice(", r"loss\.terms='dice\(' cannot be read"),
        ("(" * 300 + "dice" + ")" * 300, r"cannot be read"),
        ("dyce", r"loss\.terms='dyce': 'dyce' is unknown; known losses: cross_.*, ohem, lovasz"),
        ("dice + cross_entropy - ohem", r"subtracts; use \+ and factors above 0"),
        ("-dice", r"'-dice' subtracts"),
        ("-0.5 * dice", r"the factor -0\.5; use a number above 0"),
        ("0 * dice", r"the factor 0; use a number above 0"),
        ("nan * dice", r"the factor nan; use"),
        ("inf * dice", r"the factor inf; use"),
        ("1e200 * 1e200 * dice", r"the factor inf; use"),
        ("dice * ohem", r"'dice \* ohem' has no number; use a number \* a loss"),
        ("True * dice", r"'True \* dice' has no number"),
        ("dice / 2", r"'dice / 2' is no loss; use cross_entropy, .*with \*, \+ and \(option=value"),
        ("dice + 1", r"1 is no loss; use a number \* a loss"),
        ("[dice]", r"'\[dice\]' is no loss"),
        ("losses.dice", r"'losses\.dice' is no loss"),
        ("__import__('os').getcwd()", r"is no loss"),
        ("dice(1)", r"dice is given '1'; use dice\(option=value\), with smooth=0\.0, squared=Fal"),
        ("dice(*x)", r"dice is given '\*x'"),
        ("dice(**x)", r"dice has no option '\*\*x'"),
        ("dice(gamma=1)", r"dice has no option 'gamma'; it has smooth=0\.0, squared=False, per_im"),
        ("dice(smooth=1, smooth=2)", r"dice has two values of smooth"),
        ("dice(smooth=much)", r"smooth=much; use smooth=a number"),
        ("dice(smooth=[1])", r"smooth=\[1\]; use smooth=a number"),
        ("dice(smooth=True)", r"smooth=True; use smooth=a number"),
        ("dice(squared=1)", r"squared=1; use squared=True or False"),
        ("dice(absent=3)", r"absent=3; use absent=a word"),
        ("ohem(min_kept=1.5)", r"min_kept=1\.5; use min_kept=a whole number"),
        ("ohem(min_kept=inf)", r"min_kept=inf; use min_kept=a whole number"),
        ("focal(alpha=low)", r"alpha=low; use alpha=a number"),
        (
            "dice(smooth=-1)",
            r"loss\.terms='dice\(smooth=-1\)': dice: smooth=-1\.0; use a number of",
        ),
        ("dice(smooth=nan)", r"dice: smooth=nan; use"),
        ("ohem(threshold=7)", r"ohem: threshold=7\.0; use a number in \[0, 1\]"),
        ("cross_entropy(label_smoothing=1)", r"label_smoothing=1\.0; use a number in \[0, 1\)"),
        ("cross_entropy(divide_by=mean)", r"divide_by='mean'; use labelled, all, weights or none"),
    ],
    ids=lambda x: x[:40],
)
def test_what_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_terms(text)


def test_terms_of_the_auxiliary_head():
    assert parse_aux_terms(" ") == ()
    assert parse_aux_terms("cross_entropy") == CROSS_ENTROPY
    with pytest.raises(ValueError, match=r"^loss\.aux_terms='dyce': 'dyce' is unknown"):
        parse_aux_terms("dyce")


def test_names_are_those_of_the_head():
    terms = parse_terms("cross_entropy + 0.5 * binary_dice(smooth=1)", head="sigmoid")
    assert terms == (
        Term(1.0, "binary_cross_entropy"),
        Term(0.5, "binary_dice", (("smooth", 1.0),)),
    )
    message = "binary_dice is a loss of sigmoid heads, but model.head=softmax; use cross_entropy, "
    with pytest.raises(ValueError, match=message):
        parse_terms("binary_dice")
    message = "lovasz_softmax is a loss of softmax heads, but model.head=sigmoid; use binary_cross"
    with pytest.raises(ValueError, match=message):
        parse_terms("lovasz_softmax", head="sigmoid")
