"""Peak rates of GPUs by name, from their data sheets: dense matrix products in 10^12 operations a second."""

_H100 = {"fp32": 67.0, "tf32": 494.0, "bf16": 989.0}
GPUS: dict[str, dict[str, float]] = {
    "a100": {"fp32": 19.5, "tf32": 156.0, "bf16": 312.0},
    "a6000": {"fp32": 38.7, "tf32": 77.4, "bf16": 154.8},
    "h100": _H100,
    "h200": _H100,
    "l40s": {"fp32": 91.6, "tf32": 183.0, "bf16": 362.0},
    "rtx3090": {"fp32": 35.6, "tf32": 35.6, "bf16": 71.0},
    "rtx4090": {"fp32": 82.6, "tf32": 82.6, "bf16": 165.2},
    "t4": {"fp32": 8.1},
    "v100": {"fp32": 15.7},
}
