"""Secure aggregation: a server learns the sum of its devices' updates and nothing else of any one of them.

Bonawitz et al. 2017, "Practical Secure Aggregation for Privacy-Preserving Machine Learning", ACM CCS, double masking
with the consistency check; above 128 devices on the sparse graph of Bell et al. 2020. State machines without input
or output: `Device` and `Server` take messages and give messages. docs/secure-aggregation.md has the protocol and its
bytes.

Who is held off. A server that keeps to the protocol and reads all that it gets, together with the share of the
devices that `Floors.corrupt` allows, learns the sum over at least a quorum (more than half of those who take part),
and who took part and dropped out when. A server that lies besides about who dropped out, tells devices different
things, alters, repeats or withholds messages, gets no more: devices abort before they give anything that would. It
can always prevent a sum.

Who is not. Devices are enrolled with the very server that they mistrust, so one that makes up devices (Sybils) has
as many colluders as it likes: the floors bound how few may take part, not who they are. It can try many rosters,
too, until a ring suits it: each doubling of the rosters that it can try before a session is too old takes a bit off
the ring's 40. Roots pinned out of band would close both gaps: keys attested by the phone's maker, or a public log of
who is enrolled and who took part. A device that lies about its update can spoil a sum, or, with shares that do not
open, a round. The sum itself is published: what it tells of one person is for differential privacy to bound.
"""

from kbdfl.secagg.device import Device, Floors
from kbdfl.secagg.errors import Abort, Shortfall
from kbdfl.secagg.graph import Plan, plan_for
from kbdfl.secagg.messages import Terms
from kbdfl.secagg.server import Rule, Server, Sum

__all__ = ["Abort", "Device", "Floors", "Plan", "Rule", "Server", "Shortfall", "Sum", "Terms", "plan_for"]
