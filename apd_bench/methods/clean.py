"""Clean prompt tuning: `CE(f(x; P), y)`.

The loss of CoOp (Zhou et al., IJCV 2022), VPT (Jia et al., ECCV 2022), independent prompting and MaPLe (Khattak et al.,
CVPR 2023). They differ in their learners alone.
"""

from dataclasses import dataclass

from apd_bench.methods.objective import Adversary, Batch, Objective, Predictor, Terms, cross_entropy


@dataclass
class CleanCrossEntropy(Objective):
    """Cross-entropy on clean images; nothing is attacked."""

    def __call__(self, student: Predictor, batch: Batch, adversary: Adversary, teacher: Predictor | None) -> Terms:
        """`CE(f(x; P), y)`."""
        return {"ce_clean": cross_entropy(student(batch.pixels), batch.labels)}
