"""Accounts of compiled programs, against hand-computed counts."""

import jax
import jax.numpy as jnp
import pytest

from audiodd_jax.forecast import hlo

# A loop of five steps around one of two: a convolution in a fusion that reads a slice,
# an all-reduce, and a result that stays on the chip.
TEXT = """HloModule jit_step, is_scheduled=true

FunctionNames
1 "step"
2 "block.<locals>.elsewhere"

%fused (param_0: f32[7,4,8,8], param_1: bf16[3,3,1,16], param_2: s32[]) -> f32[4,8,8,16] {
  %param_0 = f32[7,4,8,8]{3,2,1,0} parameter(0)
  %param_1 = bf16[3,3,1,16]{3,2,1,0} parameter(1)
  %param_2 = s32[] parameter(2)
  %slice = f32[1,4,8,8]{3,2,1,0} dynamic-slice(%param_0, %param_2), dynamic_slice_sizes={1,4,8,8}
  %image = f32[4,8,8,1]{3,2,1,0} bitcast(%slice)
  ROOT %conv = f32[4,8,8,16]{3,2,1,0} convolution(%image, %param_1), window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_01io->b01f, operand_precision={highest,highest}
}

%inner_condition (p: (s32[])) -> pred[] {
  %p = (s32[]) parameter(0)
  %limit = s32[] constant(2)
  %at = s32[] get-tuple-element(%p), index=0
  ROOT %less = pred[] compare(%at, %limit), direction=LT
}

%inner (q: (s32[], f32[7,4,8,8], bf16[3,3,1,16])) -> (s32[], f32[7,4,8,8], bf16[3,3,1,16]) {
  %q = (s32[], f32[7,4,8,8]{3,2,1,0}, /*index=2*/bf16[3,3,1,16]{3,2,1,0}) parameter(0)
  %i = s32[] get-tuple-element(%q), index=0
  %data = f32[7,4,8,8]{3,2,1,0} get-tuple-element(%q), index=1
  %kernel = bf16[3,3,1,16]{3,2,1,0} get-tuple-element(%q), index=2
  %fusion.1 = f32[4,8,8,16]{3,2,1,0} fusion(%data, %kernel, %i), kind=kOutput, calls=%fused, metadata={op_name="jit(step)/conv"}
  %reduced = f32[4,8,8,16]{3,2,1,0} all-reduce(%fusion.1), replica_groups={{0,1}}
  ROOT %again = (s32[], f32[7,4,8,8]{3,2,1,0}, bf16[3,3,1,16]{3,2,1,0}) tuple(%i, %data, %kernel)
}

%outer (r: (s32[], f32[7,4,8,8], bf16[3,3,1,16])) -> (s32[], f32[7,4,8,8], bf16[3,3,1,16]) {
  %r = (s32[], f32[7,4,8,8]{3,2,1,0}, bf16[3,3,1,16]{3,2,1,0}) parameter(0)
  ROOT %loop = (s32[], f32[7,4,8,8]{3,2,1,0}, bf16[3,3,1,16]{3,2,1,0}) while(%r), condition=%inner_condition, body=%inner
}

ENTRY %main (a: f32[7,4,8,8], b: bf16[3,3,1,16]) -> f32[300,5] {
  %a = f32[7,4,8,8]{3,2,1,0} parameter(0)
  %b = bf16[3,3,1,16]{3,2,1,0} parameter(1)
  %zero = s32[] constant(0)
  %start = (s32[], f32[7,4,8,8]{3,2,1,0}, bf16[3,3,1,16]{3,2,1,0}) tuple(%zero, %a, %b)
  %steps = (s32[], f32[7,4,8,8]{3,2,1,0}, bf16[3,3,1,16]{3,2,1,0}) while(%start), condition=%inner_condition, body=%outer, backend_config={"known_trip_count":{"n":"5"}}
  %far = f32[300,5]{0,1:T(8,128)} custom-call(), custom_call_target="AllocateBuffer"
  ROOT %near = f32[300,5]{0,1:T(8,128)S(1)} copy(%far)
}
"""  # noqa: E501
TIMES = 5 * 2
CONVOLUTION = 2 * (4 * 8 * 8 * 16) * 9
OUT = 4 * (4 * 8 * 8 * 16)
# 300 rows in lanes of 128, 5 columns in rows of 8.
PADDED = 4 * 384 * 8


def test_an_account_against_hand_computed_counts():
    found = hlo.account(TEXT)
    slice_and_kernel = 4 * (4 * 8 * 8) + 2 * (9 * 16)
    fusion = slice_and_kernel + 4 + OUT  # and the index
    assert found.flops == TIMES * CONVOLUTION
    assert found.collectives == {"all-reduce": [TIMES, TIMES * OUT]}
    # The copy reads what is far and writes on the chip.
    assert found.bytes == TIMES * (fusion + 2 * OUT) + 2 * PADDED
    assert found.products == {"f32 highest": 1}
    assert found.kinds == ["bf16", "f32", "pred", "s32"]
    assert found.host == []
    assert found.functions == ["step", "block.<locals>.elsewhere"]
    assert found.rows[0][2:4] == [TIMES, "reduced"]
    assert found.rows[1] == [
        TIMES * fusion,
        TIMES * CONVOLUTION,
        TIMES,
        "fusion.1",
        "jit(step)/conv",
    ]


@pytest.mark.parametrize(
    ("line", "host"),
    [
        ('%c = f32[2] custom-call(), custom_call_target="xla_ffi_python_cpu_callback"',
         "xla_ffi_python_cpu_callback"),
        ("%c = (f32[2], token[]) infeed(%near)", "infeed"),
        ("%c = (f32[2], u32[]) send(%near), is_host_transfer=true", "send"),
    ],
)  # fmt: skip
def test_transfers_to_the_host_are_detected(line, host):
    text = TEXT.replace("  ROOT %near", f"  {line}\n  ROOT %near")
    assert hlo.account(text).host == [host]


@pytest.mark.optimized
def test_the_account_of_a_real_program():
    def step(x, w):
        return jax.lax.scan(lambda x, _: (jnp.tanh(x @ w), None), x, length=7)[0]

    shapes = (jnp.zeros((64, 96)), jnp.zeros((96, 96)))
    found = hlo.account(jax.jit(step).lower(*shapes).compile().as_text())
    assert found.flops == 7 * 2 * 64 * 96 * 96
    assert found.kinds[0] == "f32"
    least = 7 * 4 * (2 * 64 * 96 + 96 * 96)
    assert least <= found.bytes < 3 * least


def test_the_three_convolutions_of_a_library():
    """One convolution, its input's gradient and its kernel's cost the same."""
    line = (
        "  %c = ({out}, u8[0]{{0}}) custom-call(%p, %q), window={{size=3x3}}, "
        'dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$conv{kind}"'
    )
    image, kernel = "f32[5,8,8,3]{3,2,1,0}", "f32[7,3,3,3]{3,2,1,0}"
    out = "f32[5,8,8,7]{3,2,1,0}"
    parts = {
        "Forward": (image, kernel, out),
        "BackwardInput": (out, kernel, image),
        "BackwardFilter": (image, out, kernel),
    }
    for kind, (p, q, result) in parts.items():
        text = "\n".join(
            [
                "ENTRY %main (p: f32[], q: f32[]) -> f32[] {",
                f"  %p = {p} parameter(0)",
                f"  %q = {q} parameter(1)",
                line.format(out=result, kind=kind),
                "}",
            ]
        )
        assert hlo.account(text).flops == 2 * (5 * 8 * 8 * 7) * 27, kind
