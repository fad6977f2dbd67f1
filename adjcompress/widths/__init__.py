"""How wide is each layer of a small network, and how is it cut?"""

from adjcompress.widths.candidates import Candidates, candidate_widths
from adjcompress.widths.certificate import Certificate, compare
from adjcompress.widths.channels import ChannelGroup, channel_groups
from adjcompress.widths.check import check_slices
from adjcompress.widths.importance import IMPORTANCES, kept_by_place, order_channels_
from adjcompress.widths.plan import GroupWidth, WidthPlan
from adjcompress.widths.planning import plan_at, plan_like, plan_widths
from adjcompress.widths.reestimate import reestimate_batch_norm_
from adjcompress.widths.surgery import cut, slice_model

__all__ = [
    "IMPORTANCES",
    "Candidates",
    "Certificate",
    "ChannelGroup",
    "GroupWidth",
    "WidthPlan",
    "candidate_widths",
    "channel_groups",
    "check_slices",
    "compare",
    "cut",
    "kept_by_place",
    "order_channels_",
    "plan_at",
    "plan_like",
    "plan_widths",
    "reestimate_batch_norm_",
    "slice_model",
]
