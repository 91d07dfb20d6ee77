"""`async`: synchronous rounds with over-selection against FedBuff by virtual time, on phones of heavy-tailed speeds.

As many phones may train at once in both. The larger a synchronous cohort the more of them do, but the longer it waits
for its slowest and the less each report teaches; so its size is tuned like a rate. FedBuff (Nguyen et al. 2021, arXiv
2106.06639) makes a version of every ten reports and waits for nobody; its reports are stale.
"""

from collections.abc import Sequence

from kbdfl.algorithms import Algorithm, ClientRule, FedAdam, FedBuff
from kbdfl.device_sim.experiments.report import Columns
from kbdfl.device_sim.experiments.settings import Federated, Setting
from kbdfl.device_sim.experiments.study import Run, Study, Tried
from kbdfl.device_sim.experiments.timing import soonest, spoken, until
from kbdfl.task import RoundRule

AT_ONCE = 130  # phones that may train at a time
OVER_SELECTION = 1.3
BUFFER = 10
# Server rates by cohort: the more reports a step has, the longer it may be.
SYNCHRONOUS = ((30, 0.03), (60, 0.05), (100, 0.04), (100, 0.06), (100, 0.09))
BUFFERED = (0.0075, 0.015, 0.03)
# Over-selection lets go of the slowest quarter of every cohort, this of the slowest sixth of all assignments.
DEADLINE_S = 10.0
# Stale updates go on in old directions, which is a momentum of its own (Mitliagkas et al. 2016, arXiv 1605.09774).
BETA1 = 0.5
CANDIDATES = 1_000  # of the sampled softmax
SHARE = 0.95  # of the recall that synchronous training ends with is the target
EARLIER = 0.9  # and an earlier one
POINTS = 16
SPEEDS = "heavy-tailed"
METHODS = ("synchronous", "fedbuff")


def settings(*, rounds: int, quick: bool) -> list[Setting]:
    """Cohorts with their rates, and FedBuff's rates. All runs count as many reports as `rounds` of FedBuff."""
    client = ClientRule(candidates=CANDIDATES)
    reports = rounds * BUFFER
    return [
        *(
            Federated(
                METHODS[0],
                f"cohort {cohort}, server rate {rate:g}",
                Algorithm(client=client, server=FedAdam(rate, rate / 10, -(-reports // cohort))),
                -(-reports // cohort),
                points=POINTS,
                rule=RoundRule(cohort=cohort, over_selection=OVER_SELECTION),
                speeds=SPEEDS,
            )
            for cohort, rate in SYNCHRONOUS
        ),
        *(
            Federated(
                METHODS[1],
                f"server rate {rate:g}",
                Algorithm(
                    client=client,
                    server=FedAdam(rate, rate / 10, rounds, beta1=BETA1),
                    mode=FedBuff(concurrency=AT_ONCE, max_staleness=100),
                ),
                rounds,
                points=POINTS,
                rule=RoundRule(cohort=BUFFER, deadline_s=DEADLINE_S),
                speeds=SPEEDS,
            )
            for rate in BUFFERED
        ),
    ]


def choose(tried: Sequence[Tried]) -> dict[str, Tried]:
    """Of each method the value that has the target soonest on validation users."""
    most = max(one.recall_top1 for one in tried if one.method == METHODS[0])
    return soonest(tried, SHARE * most)


def figures(study: Study) -> dict[str, float]:
    """Synchronous hours to the target on held-out users over FedBuff's, seed by seed; and phones' trips likewise."""
    pairs = list(zip(*map(study.of, METHODS), strict=True))
    hours = [_ratio(slow, quick, "hours") for slow, quick in pairs]
    earlier = [_ratio(slow, quick, "hours", share=EARLIER) for slow, quick in pairs]
    trips = [_ratio(slow, quick, "trips") for slow, quick in pairs]
    return {
        "speedup": sum(hours) / len(hours),
        "speedup_low": min(hours),
        "speedup_high": max(hours),
        "speedup_to_90_percent": sum(earlier) / len(earlier),
        "trips_ratio": sum(trips) / len(trips),
    }


def columns(study: Study) -> Columns:
    """Hours and trips to each seed's target."""
    targets = [_target(run) for run in study.of(METHODS[0])]

    def texts(count: str, form: str) -> dict[str, str]:
        return {
            method: spoken(
                [
                    until(run.curve, target, count=count)
                    for run, target in zip(study.of(method), targets, strict=True)
                ],
                form,
            )
            for method in METHODS
        }

    return {"hours to target": texts("hours", ".3f"), "trips to target": texts("trips", ",.0f")}


def _target(synchronous: Run, share: float = SHARE) -> float:
    return share * synchronous.recall_top1


def _ratio(synchronous: Run, buffered: Run, count: str, *, share: float = SHARE) -> float:
    """0 if FedBuff never has the target."""
    target = _target(synchronous, share)
    return until(synchronous.curve, target, count=count) / until(buffered.curve, target, count=count)
