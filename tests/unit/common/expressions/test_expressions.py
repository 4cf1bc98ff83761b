"""The language of requirement and rank: what it accepts, what it means, and where it points when it does not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.common.expressions import (
    ALWAYS,
    And,
    Arithmetic,
    Boolean,
    Choice,
    Comparison,
    Constant,
    Kind,
    Membership,
    Negative,
    Not,
    Number,
    Numeric,
    NumericAttribute,
    Or,
    TextComparison,
    TextOfVm,
    VmThere,
    attribute_name,
    parse,
)


def requirement(text: str) -> Boolean:
    return parse(text, Kind.REQUIREMENT).condition


def rank(text: str) -> Numeric:
    return parse(text, Kind.RANK).score


def refused(text: str, kind: Kind = Kind.REQUIREMENT) -> MolnError:
    with pytest.raises(MolnError) as caught:
        parse(text, kind, "template.requirement")
    assert caught.value.reason is Reason.EXPRESSION_INVALID
    assert caught.value.fields[0][0] == "template.requirement"
    return caught.value


FREE, ARCH = NumericAttribute("FREE_CPU"), TextComparison("=", "ARCH", "x86_64")


def test_an_empty_requirement_takes_every_host_and_an_empty_rank_is_zero() -> None:
    assert requirement("") is ALWAYS
    assert requirement("  \n ") is ALWAYS
    assert rank("") == Number(0.0)


def test_names_of_attributes_have_no_case() -> None:
    assert requirement("free_cpu > 100") == requirement("FREE_CPU > 100") == Comparison(">", FREE, Number(100.0))


@pytest.mark.parametrize("sign", ["=", "!=", ">", ">=", "<", "<="])
def test_numbers_compare_in_six_ways(sign: str) -> None:
    found = requirement(f"FREE_CPU {sign} 1.5")
    assert isinstance(found, Comparison)
    assert found.sign == sign


def test_the_doubled_signs_mean_what_the_single_ones_do() -> None:
    assert requirement("A == 1 && B = 2 || C = 3") == requirement("A = 1 & B == 2 | C = 3")


def test_and_and_or_are_taken_from_left_to_right_as_in_opennebula() -> None:
    a, b, c = (Comparison("=", NumericAttribute(name), Number(1.0)) for name in "ABC")
    assert requirement("A=1 | B=1 & C=1") == And((Or((a, b)), c))
    assert requirement("A=1 | (B=1 & C=1)") == Or((a, And((b, c))))


def test_not_binds_looser_than_a_comparison_and_tighter_than_and() -> None:
    assert requirement('!FREE_CPU > 1 & ARCH = "x86_64"') == And((Not(Comparison(">", FREE, Number(1.0))), ARCH))


def test_a_word_on_the_right_of_an_equals_sign_is_text_unless_it_names_a_number() -> None:
    assert requirement("HYPERVISOR = kvm") == TextComparison("=", "HYPERVISOR", "kvm")
    assert requirement("FREE_CPU = TOTAL_CPU") == Comparison("=", FREE, NumericAttribute("TOTAL_CPU"))


def test_a_list_has_a_text_or_a_number_as_member() -> None:
    assert requirement("GROUPS @> gold") == requirement('groups @> "gold"') == Membership("GROUPS", "gold")
    assert requirement("GROUPS @> 3") == Membership("GROUPS", 3.0)
    assert requirement("GROUPS @> -3") == Membership("GROUPS", -3.0)
    assert requirement("ID @> 3") == requirement('ID @> "3"') == requirement("ID = 3")


def test_the_vms_of_a_host_are_asked_for_by_id() -> None:
    assert requirement("CURRENT_VMS = 3") == requirement('current_vms @> "3"') == VmThere("=", 3)
    assert requirement("CURRENT_VMS != 3") == VmThere("!=", 3)
    found = parse("CURRENT_VMS != 3 & (A = 1 | CURRENT_VMS = 4)", Kind.REQUIREMENT)
    assert found.vm_ids == {3, 4}
    assert found.is_dynamic


def test_names_of_opennebula_are_understood() -> None:
    assert requirement("MAX_CPU - CPU_USAGE > 1") == requirement("TOTAL_CPU - USED_CPU > 1")
    assert requirement("MAX_MEM = MEM_USAGE") == requirement("TOTAL_MEMORY = USED_MEMORY")


def test_a_label_of_the_vm_on_the_right_is_what_it_says() -> None:
    assert requirement("LABEL_TIER = VM_LABEL_TIER") == TextComparison("=", "LABEL_TIER", TextOfVm("VM_LABEL_TIER"))
    found = parse("LABEL_TIER = VM_LABEL_TIER & FREE_MEMORY > 2 * VM_MEMORY", Kind.REQUIREMENT)
    assert found.of_vm == {"VM_LABEL_TIER", "VM_MEMORY"}


def test_what_a_vm_says_of_itself_is_put_in() -> None:
    def bound(text: str, **texts: str) -> Boolean:
        return parse(text, Kind.REQUIREMENT).bound(texts).condition

    says = {"VM_MEMORY": "512", "VM_LABEL_TIER": "go*ld", "VM_LABEL_ROLES": "db, web"}
    assert bound("FREE_MEMORY > 2 * VM_MEMORY", **says) == requirement("FREE_MEMORY > 2 * 512")
    assert bound("LABEL_TIER = VM_LABEL_TIER", **says) == TextComparison("=", "LABEL_TIER", "go\\*ld")
    assert bound("VM_LABEL_TIER = gold") == bound("VM_LABEL_TIER != gold") == Constant(False)
    assert bound('VM_LABEL_TIER = "go*" | A = 1', **says) == Or((Constant(True), requirement("A = 1")))
    assert bound("!(VM_LABEL_ROLES @> web)", **says) == Not(Constant(True))
    assert bound("LABEL_A = VM_LABEL_A") == Constant(False)
    assert parse("FREE_CPU + VM_LABEL_A", Kind.RANK).bound({}).score == rank("FREE_CPU + 0")


def test_a_number_in_quotes_is_a_number_where_the_attribute_is_one() -> None:
    assert requirement('ID = "3"') == requirement("ID = 3")


def test_text_may_stand_on_the_left() -> None:
    assert requirement('"x86_64" = ARCH') == ARCH


def test_arithmetic_follows_the_usual_order() -> None:
    a, b, c = (NumericAttribute(name) for name in "ABC")
    assert rank("a + b * c") == Arithmetic("+", a, Arithmetic("*", b, c))
    assert rank("a - b - c") == Arithmetic("-", Arithmetic("-", a, b), c)
    assert rank("-a * +b") == Arithmetic("*", Negative(a), b)
    assert rank("(a + b) / 2") == Arithmetic("/", Arithmetic("+", a, b), Number(2.0))


def test_an_expression_knows_its_attributes_and_whether_placements_change_it() -> None:
    found = parse("LABEL_RACK = 3 & free_memory > 1", Kind.REQUIREMENT)
    assert found.attributes == {"LABEL_RACK", "FREE_MEMORY"}
    assert found.is_dynamic
    assert not parse("LABEL_RACK = 3", Kind.REQUIREMENT).is_dynamic


@pytest.mark.parametrize(
    ("text", "column", "words"),
    [
        ("FREE_CPU >", 11, "a number"),
        ("(FREE_CPU > 1", 14, ") "),
        ("FREE_CPU > 1)", 13, "is not expected here"),
        ("A < 2 < 3", 7, "is not expected here"),
        ("CLUSTER @ 3", 9, "@ has no meaning here"),
        ('ARCH = "x86', 8, "no closing quote"),
        ("ARCH = 'x86'", 8, "double quotes"),
        ("FREE_CPU", 1, "FREE_CPU > 0"),
        ("FREE_CPU + 1", 1, "a condition is needed here, not a number"),
        ('"x"', 1, "a condition is needed here, not a text"),
        ("A = 1 & 7", 9, "a condition is needed here"),
        ("(A = 1) + 2 > 3", 2, "a number is needed here, not a condition"),
        ("NAME > 3", 1, "NAME is text"),
        ('NAME > "a"', 6, "text is compared with = or !="),
        ('FREE_CPU = "much"', 12, "FREE_CPU is a number"),
        ('A + "b" > 1', 5, "a number is needed here, not a text"),
        ("A = " + "9" * 400, 5, "too large"),
        ("3 @> 3", 1, "an attribute is needed on the left of @>"),
        ("A @> B + 1", 6, "a text or a number is needed on the right of @>"),
        ('FREE_CPU @> "much"', 13, "FREE_CPU is a number"),
        ("CURRENT_VMS > 3", 13, "CURRENT_VMS is a list"),
        ("CURRENT_VMS = web", 15, "the id of a VM is needed here"),
        ("CURRENT_VMS + 1 > 3", 1, "CURRENT_VMS is a list"),
        ("CURRENT_VMS", 1, "CURRENT_VMS = 12"),
        ("NAME = web*", 12, "ends too early"),
        ("!" * 200 + "A = 1", 201, "nested"),
    ],
)
def test_a_bad_requirement_is_refused_with_the_place(text: str, column: int, words: str) -> None:
    error = refused(text)
    assert words in error.message
    assert error.metadata["column"] == str(column)


def test_a_condition_is_no_rank() -> None:
    assert "a number is needed here" in refused("FREE_CPU > 1", Kind.RANK).message


def test_the_caret_stands_under_the_place() -> None:
    message, line, caret = refused('FREE_CPU > 100 & NAME > "a"').message.split("\n")
    assert message.startswith("template.requirement: ")
    assert line[caret.index("^")] == ">"
    assert caret.index("^") == line.rindex(">")


def test_the_caret_is_right_in_the_middle_of_a_long_text_and_of_many_lines() -> None:
    error = refused("A = 1 &\n" + "B = 1 & " * 40 + "@ & C = 1")
    _, line, caret = error.message.split("\n")
    assert line[caret.index("^")] == "@"
    assert error.metadata == {"line": "2", "column": "321"}


def test_an_expression_is_bounded() -> None:
    assert "at most 4096 characters" in refused("A = 1 &" * 1000).message


def test_many_conditions_in_a_row_are_not_deep() -> None:
    found = requirement(" & ".join(["A = 1"] * 500))
    assert isinstance(found, And)
    assert len(found.operands) == 500


def test_what_labels_are_called_becomes_a_name() -> None:
    assert attribute_name("rack-row.1") == "RACK_ROW_1"
    assert attribute_name("1st") == ""
    assert attribute_name("höhe") == "H_HE"


@given(st.text(alphabet="AB1.9 \"&|!()=<>+-*/@\n'x", max_size=40), st.sampled_from(Kind))
def test_any_text_is_either_an_expression_or_refused_with_a_place_in_it(text: str, kind: Kind) -> None:
    try:
        parse(text, kind)
    except MolnError as error:
        lines = text.split("\n")
        line = lines[int(error.metadata["line"]) - 1]
        assert 1 <= int(error.metadata["column"]) <= len(line) + 1


def numbers() -> st.SearchStrategy[Numeric]:
    leaves = st.one_of(
        st.integers(0, 99).map(lambda value: Number(float(value))), st.sampled_from("ABC").map(NumericAttribute)
    )
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            inner.map(Negative),
            st.builds(Arithmetic, st.sampled_from(["+", "-", "*", "/"]), inner, inner),
        ),
        max_leaves=6,
    )


patterns = st.sampled_from(["x", "y z", "?", "*", "y*", "[!x]*", "*z", "1", "", "-*5"])


def conditions() -> st.SearchStrategy[Boolean]:
    leaves = st.one_of(
        st.builds(Comparison, st.sampled_from(["=", "!=", ">", ">=", "<", "<="]), numbers(), numbers()),
        st.builds(TextComparison, st.sampled_from(["=", "!="]), st.sampled_from("ABC"), patterns),
        st.builds(Membership, st.sampled_from("ABC"), st.one_of(patterns, st.integers(-1, 9).map(float))),
        st.builds(VmThere, st.sampled_from(["=", "!="]), st.integers(0, 4)),
    )
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            inner.map(Not),
            st.lists(inner, min_size=2, max_size=3).map(lambda found: And(tuple(found))),
            st.lists(inner, min_size=2, max_size=3).map(lambda found: Or(tuple(found))),
        ),
        max_leaves=6,
    )


def written(node: Numeric | Boolean) -> str:
    """The expression as text, every operand in parentheses."""
    match node:
        case Number():
            return f"{node.value:g}"
        case NumericAttribute():
            return f"({node.name})"
        case Negative():
            return f"(-{written(node.operand)})"
        case Arithmetic() | Comparison():
            return f"({written(node.left)} {node.sign} {written(node.right)})"
        case TextComparison():
            return f'({node.name} {node.sign} "{node.text}")'
        case Membership():
            return f"({node.name} @> " + (f'"{node.member}")' if isinstance(node.member, str) else f"{node.member:g})")
        case VmThere():
            return f"(CURRENT_VMS {node.sign} {node.vm_id})"
        case Not():
            return f"(!{written(node.operand)})"
        case And():
            return "(" + " & ".join(written(operand) for operand in node.operands) + ")"
        case Or():
            return "(" + " | ".join(written(operand) for operand in node.operands) + ")"
        case Constant() | Choice():
            raise AssertionError("has no written form")


@given(conditions())
def test_what_is_written_is_read_back_the_same(tree: Boolean) -> None:
    assert requirement(written(tree)) == tree
