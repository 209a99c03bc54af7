def kernels() -> list[str]: ...
def apply(kernel: str, values: int, count: int, table: int, /) -> None: ...
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
