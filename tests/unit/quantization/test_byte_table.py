from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from qgate.quantization.byte_table import apply_table

LAYOUTS = {
    "contiguous": lambda values: values,
    "channels_last": lambda values: values.contiguous(memory_format=torch.channels_last),
    "transposed": lambda values: values.transpose(1, 3),
    "with_an_offset": lambda values: torch.cat([values, values])[1:],
}


def random_bytes(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(1, 3, 5, 7), (1, 16, 33, 41), (2, 64, 80, 80), (1, 1, 1, 1), (0, 3, 4, 4)])
def test_every_element_becomes_its_entry_in_place(layout: str, shape: tuple[int, ...]) -> None:
    values, table = LAYOUTS[layout](random_bytes(*shape)), random_bytes(256, seed=1)
    expected = torch.tensor([table.tolist()[value] for value in values.flatten().tolist()], dtype=torch.uint8)
    address = values.data_ptr()

    with torch.inference_mode():
        result = apply_table(values, table)

    assert result is values
    assert values.data_ptr() == address
    assert values.flatten().equal(expected)


def test_neighbours_in_the_same_storage_keep_their_bytes() -> None:
    storage, table = random_bytes(3, 1000), random_bytes(256, seed=1)
    before = storage.clone()

    apply_table(storage[1], table)

    assert storage[[0, 2]].equal(before[[0, 2]])
    assert storage[1].equal(table[before[1].long()])


def test_threads_do_not_disturb_each_other() -> None:
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
