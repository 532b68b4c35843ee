"""Float64 tests; run them with `JAX_ENABLE_X64=1 pytest`."""
