def kernels() -> list[str]: ...
def torch_functions() -> list[str]: ...
def register_operators(kernel: str, addresses: list[int], /) -> None: ...
def map_rows(
    kernel: str, to: int, source: int, length: int, count: int, to_stride: int, source_stride: int, table: int, /
) -> None: ...
def quantize(
    kernel: str, to: int, values: int, count: int, num_planes: int, inverse: float, zero_point: float, /
) -> None: ...
def add(
    kernel: str,
    values: int,
    other: int,
    count: int,
    table: int,
    table_scale: float,
    table_zero_point: int,
    other_scale: float,
    other_zero_point: int,
    scale: float,
    zero_point: int,
    /,
) -> None: ...
