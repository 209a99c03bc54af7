from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from qgate.quantization import byte_table
from qgate.quantization.byte_table import SumQuantization, add_table, apply_table, kernel_name, quantize_planes
from qgate.quantization.prepare import quiet_torch_ao

KERNELS = [*byte_table._KERNELS, None]  # None: what runs where the native module was not built

LAYOUTS = {
    "contiguous": lambda values: values,
    "channels_last": lambda values: values.contiguous(memory_format=torch.channels_last),
    "transposed": lambda values: values.transpose(1, 3),
    "with_an_offset": lambda values: torch.cat([values, values])[1:],
}


@pytest.fixture(params=KERNELS, ids=lambda kernel: kernel or "fallback")
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(byte_table, "_kernel", request.param)


def random_bytes(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def summed_by_torch(mapped: torch.Tensor, other: torch.Tensor, by: SumQuantization) -> torch.Tensor:
    """Dequantize, add and quantize as a reference graph does."""
    with quiet_torch_ao():
        first = torch._make_per_tensor_quantized_tensor(mapped, by.table_scale, by.table_zero_point)
        second = torch._make_per_tensor_quantized_tensor(other, by.other_scale, by.other_zero_point)
        total = first.dequantize() + second.dequantize()
        return torch.quantize_per_tensor(total, by.scale, by.zero_point, torch.quint8).int_repr()


def every_pair() -> tuple[torch.Tensor, torch.Tensor]:
    first, second = torch.meshgrid(torch.arange(256), torch.arange(256), indexing="ij")
    return first.to(torch.uint8), second.to(torch.uint8)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(1, 3, 5, 7), (1, 16, 33, 41), (2, 64, 20, 20), (1, 1, 1, 1), (0, 3, 4, 4)])
def test_every_element_becomes_its_entry_in_place(kernel: None, layout: str, shape: tuple[int, ...]) -> None:
    values, table = LAYOUTS[layout](random_bytes(*shape)), random_bytes(256, seed=1)
    expected = torch.tensor([table.tolist()[value] for value in values.flatten().tolist()], dtype=torch.uint8)
    address = values.data_ptr()

    with torch.inference_mode():
        result = apply_table(values, table)

    assert result is values
    assert values.data_ptr() == address
    assert values.flatten().equal(expected)


def test_neighbours_in_the_same_storage_keep_their_bytes(kernel: None) -> None:
    table = random_bytes(256, seed=1)
    for length in range(200):
        storage = random_bytes(3, length)
        before = storage.clone()

        apply_table(storage[1], table)

        assert storage[[0, 2]].equal(before[[0, 2]])
        assert storage[1].equal(table[before[1].long()])


def test_threads_do_not_disturb_each_other(kernel: None) -> None:
    tables = [random_bytes(256, seed=seed) for seed in range(8)]
    values = [random_bytes(1, 16, 160, 160, seed=seed) for seed in range(8)]
    expected = [table[value.long()] for table, value in zip(tables, values, strict=True)]

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(apply_table, values, tables))

    assert all(result.equal(wanted) for result, wanted in zip(results, expected, strict=True))


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(torch.zeros(4, 8, dtype=torch.uint8)[:, :4], id="gaps"),
        pytest.param(torch.zeros(1, dtype=torch.uint8).expand(8), id="overlap"),
        pytest.param(torch.zeros(8, dtype=torch.int8), id="int8"),
        pytest.param(torch.zeros(8), id="float"),
    ],
)
def test_a_tensor_that_is_not_dense_bytes_is_refused(values: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="applies to dense uint8 CPU tensors, not to"):
        apply_table(values, random_bytes(256))


@pytest.mark.parametrize(
    "table",
    [
        pytest.param(torch.zeros(255, dtype=torch.uint8), id="short"),
        pytest.param(torch.zeros(512, dtype=torch.uint8)[::2], id="strided"),
        pytest.param(torch.zeros(256), id="float"),
    ],
)
def test_a_table_that_is_not_256_bytes_is_refused(table: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="a byte table is contiguous uint8"):
        apply_table(random_bytes(8), table)


QUANTIZATIONS = {
    "detector": SumQuantization(0.0371, 7, 0.0522, 12, 0.0634, 9),
    "no_zero_points": SumQuantization(0.02, 0, 0.03, 0, 0.04, 0),
    "halves": SumQuantization(0.25, 128, 0.25, 128, 0.5, 128),
    "clamps_below_and_above": SumQuantization(1.0, 100, 1.0, 100, 0.01, 50),
    "collapsed_output": SumQuantization(3.0, 17, 5.0, 200, 1.1920929e-07, 255),
}


@pytest.mark.parametrize("by", QUANTIZATIONS.values(), ids=QUANTIZATIONS)
def test_a_sum_is_what_torch_gives_for_every_pair(kernel: None, by: SumQuantization) -> None:
    (values, other), table = every_pair(), random_bytes(256, seed=1)
    expected = summed_by_torch(table[values.long()], other, by)

    with torch.inference_mode():
        result = add_table(values, other, table, by)

    assert result is values
    assert result.equal(expected)


def test_random_quantizations_of_sums(kernel: None) -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        scales = (10 ** (torch.rand(3, generator=generator) * 2 - 3)).tolist()
        zeros = torch.randint(0, 256, (3,), generator=generator).tolist()
        by = SumQuantization(scales[0], zeros[0], scales[1], zeros[1], scales[2], zeros[2])
        (values, other), table = every_pair(), random_bytes(256, seed=zeros[0])
        expected = summed_by_torch(table[values.long()], other, by)
        assert add_table(values, other, table, by).equal(expected)


def test_summands_may_differ_in_layout_and_length_is_any(kernel: None) -> None:
    by, table = QUANTIZATIONS["detector"], random_bytes(256, seed=1)
    for channels in range(1, 130):
        values = random_bytes(1, channels, 3, 1).contiguous(memory_format=torch.channels_last)
        other = random_bytes(1, channels, 3, 1, seed=1)
        untouched = other.clone()
        expected = summed_by_torch(table[values.long()], other, by)
        assert add_table(values, other, table, by).equal(expected)
        assert other.equal(untouched)


def test_summands_of_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot add"):
        add_table(random_bytes(4, 8), random_bytes(8), random_bytes(256), QUANTIZATIONS["detector"])


def test_the_kernel_in_use_is_named() -> None:
    assert kernel_name() in {"avx512_vbmi", "avx2", "cv2.LUT"}


@pytest.mark.skipif(not byte_table._KERNELS, reason="the native module was not built")
def test_a_kernel_that_writes_past_the_end_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    native, kernel = byte_table._byte_table.map_rows, byte_table._KERNELS[0]

    def too_long(kernel: str, to: int, source: int, length: int, *others: int) -> None:
        native(kernel, to, source, length + 1, *others)

    assert byte_table._is_right(kernel)
    monkeypatch.setattr(byte_table._byte_table, "map_rows", too_long)
    assert not byte_table._is_right(kernel)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "transposed"])
@pytest.mark.parametrize("quantization", [(1 / 255, 0), (0.031, 117), (0.02, 255)])
@pytest.mark.parametrize("shape", [(1, 3, 64, 65), (2, 1, 5, 7), (3, 2, 9, 9), (2, 4, 6, 11), (1, 3, 1, 1)])
def test_planes_are_quantized_as_torch_quantizes_them(
    kernel: None, shape: tuple[int, ...], quantization: tuple[float, int], layout: str
) -> None:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 3
    values.view(-1)[:2] = torch.tensor([1e6, -1e6])
    given = values.transpose(2, 3).contiguous().transpose(2, 3) if layout == "transposed" else LAYOUTS[layout](values)
    with quiet_torch_ao():
        expected = torch.quantize_per_tensor(values.clamp(-1e5, 1e5), *quantization, torch.quint8).int_repr()

    result = quantize_planes(given, *quantization)

    assert result.equal(expected)
    assert result.is_contiguous(memory_format=torch.channels_last)
