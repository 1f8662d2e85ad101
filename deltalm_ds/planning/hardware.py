"""What devices and their links can do, by their makers' data sheets.

Memory, memory bandwidth and NVLink: NVIDIA's data sheets of A100, H100, H200, B200 (as in HGX and DGX B200)
and L40S; H100 PCIe and L40S have no NVLink here, but PCIe. Network: the adapters of NVIDIA's DGX of that
generation, one for each GPU; L40S: one of 200 Gb/s for two GPUs, as in NVIDIA's OVX. A sheet's GB are read as
10^9 bytes, the smaller reading. Peaks are those that a run's MFU is measured against, training/flops.py.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from deltalm_ds.training.flops import NAMED_PEAKS

DeviceName = Literal["a100-40gb", "a100", "h100-pcie", "h100", "h200", "b200", "l40s", "cpu"]


@dataclass(frozen=True)
class Speeds:
    """Rates of a device and its links."""

    peak_tflops: float
    """Dense, in the 16 bits that a run multiplies in."""
    memory_gb_per_second: float
    link_gb_per_second: float
    """To the other devices of its node, in each direction."""
    network_gbit_per_second: float
    """To other nodes, for each device, in each direction."""


@dataclass(frozen=True)
class Device:
    """What one rank computes on."""

    memory_bytes: float
    speeds: Speeds | None
    """None where no sheet says them: then no time is planned."""

    @property
    def is_cpu(self) -> bool:
        """A process on a CPU: fp32, gloo, and memory that counts once it is touched."""
        return self.speeds is None

    def with_network(self, gbit_per_second: float) -> Device:
        """The same on another network."""
        assert self.speeds is not None
        speeds = dataclasses.replace(self.speeds, network_gbit_per_second=gbit_per_second)
        return dataclasses.replace(self, speeds=speeds)


DEVICES: dict[DeviceName, Device] = {
    "a100-40gb": Device(40e9, Speeds(NAMED_PEAKS["A100"], 1555, 300, 200)),
    "a100": Device(80e9, Speeds(NAMED_PEAKS["A100"], 2039, 300, 200)),
    "h100-pcie": Device(80e9, Speeds(NAMED_PEAKS["H100 PCIe"], 2000, 64, 200)),
    "h100": Device(80e9, Speeds(NAMED_PEAKS["H100"], 3350, 450, 400)),
    "h200": Device(141e9, Speeds(NAMED_PEAKS["H200"], 4800, 450, 400)),
    "b200": Device(180e9, Speeds(NAMED_PEAKS["B200"], 8000, 900, 400)),
    "l40s": Device(48e9, Speeds(NAMED_PEAKS["L40S"], 864, 32, 100)),
    "cpu": Device(float("inf"), None),
}
