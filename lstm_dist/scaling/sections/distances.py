"""Say which links were measured, within a host or between hosts, and which of them the predictions assume."""

from lstm_dist.experiments.report.formatters import counted
from lstm_dist.scaling.host_links import HostLinks


def measured_links(links: HostLinks) -> str:
    """Return how the links were told apart, or which one is unknown and what would measure it."""
    if links.within and links.between:
        return (
            "The link within a host is fitted to the allreduces on one host; the link between hosts to those on "
            "several hosts, without the time of their messages within a host."
        )
    if links.within:
        return (
            "All workers were on one host, so the link between hosts is unknown: measure on several hosts, as in "
            "`-H node1:2,node2:2`."
        )
    advice = "measure several workers on one host as well, as in `--workers 1,2,4 -H node1:2,node2:2`."
    if links.per_host == 1:
        return f"Every worker was on a host of its own, so the link within a host is unknown: {advice}"
    return (
        "No allreduce had all its workers on one host, so the two links are not told apart, and both are part of the "
        f"one shown: {advice}"
    )


def assumed_links(links: HostLinks) -> str:
    """Return the hosts and links on which the predictions for more workers are based."""
    if not (links.within and links.between):
        unknown = "between hosts" if links.within else "within a host"
        return f"the link {unknown} is unknown; all further workers are assumed to be as distant as the measured ones"
    if links.per_host == 1:
        return "every worker is assumed to be on a host of its own, as measured, and to use the link between hosts"
    workers = counted(links.per_host, "worker")
    return (
        f"there are {workers} on every host, as measured; more than {links.per_host} use the link between hosts, and "
        "the link within a host for their messages on one host"
    )
