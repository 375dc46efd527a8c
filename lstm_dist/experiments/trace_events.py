"""Events on tracks as a JSON object in the Trace Event Format, which Perfetto and other trace viewers open.

The format is that of Chromium's trace viewer, described in its document "Trace Event Format". A track is a thread of a
process. An event that lasts is a complete event (X), and one that does not is an instant event (i). Metadata events (M)
name the processes and threads. Times are whole microseconds, so that no rounding by a reader makes two events overlap.
"""

from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Sequence

from lstm_dist.errors import printable

_CATEGORY = "lstm_dist"
_THREADS = 1000  # number of the first thread, or a multiple of it, if there are as many processes


class Track(NamedTuple):
    """A line of the picture: a thread, under the name of its process."""

    process: str
    thread: str


class TraceEvent(NamedTuple):
    """Something that happened on a track.

    Attributes:
        track: where it is shown.
        name: of the event; events of one name have one colour.
        begin: seconds since the beginning of the trace.
        seconds: how long it took; None if it only has a time.
        facts: about it, shown when it is selected; values that JSON has.
    """

    track: Track
    name: str
    begin: float
    seconds: Optional[float]
    facts: Dict[str, Any]


def trace_object(tracks: Sequence[Track], events: Iterable[TraceEvent], about: Dict[str, str]) -> Dict[str, Any]:
    """Return the object to be written as JSON.

    Events of one track must not overlap, so one that begins before the end of the last, as after a clock was set back,
    is moved there.

    Args:
        tracks: of all events, in the order in which they are shown; their numbers as threads count from 1000.
        events: those of one track in the order of their times.
        about: the trace.
    """
    processes = dict.fromkeys(track.process for track in tracks)
    process_ids = {process: number for number, process in enumerate(processes, 1)}
    # Perfetto names a thread by its number alone, and takes a thread with the number of a process for its main thread.
    first = _THREADS * (1 + len(processes) // _THREADS)
    thread_ids = {track: number for number, track in enumerate(dict.fromkeys(tracks), first)}
    places = {track: {"pid": process_ids[track.process], "tid": number} for track, number in thread_ids.items()}
    found = [line for name, number in process_ids.items() for line in _named("process", name, {"pid": number})]
    found += [line for track, place in places.items() for line in _named("thread", track.thread, place)]
    ends = dict.fromkeys(places, 0)
    for event in events:
        line = _timed(event, ends[event.track])
        ends[event.track] = line["ts"] + line.get("dur", 0)
        found.append({**line, **places[event.track]})
    return {"traceEvents": found, "displayTimeUnit": "ms", "otherData": about}


def _named(kind: str, name: str, place: Dict[str, int]) -> List[Dict[str, Any]]:
    """Return the events that name a process or thread, and put it after those with lower numbers."""
    order = place.get("tid", place["pid"])
    facts: Dict[str, Dict[str, Any]] = {"name": {"name": printable(name)}, "sort_index": {"sort_index": order}}
    return [{"name": f"{kind}_{what}", "ph": "M", **place, "args": args} for what, args in facts.items()]


def _timed(event: TraceEvent, earliest: int) -> Dict[str, Any]:
    """Return an event without its place, moved to `earliest`, in microseconds, if it begins before."""
    begin, end = _microseconds(event.begin), _microseconds(event.begin + (event.seconds or 0.0))
    kind: Dict[str, Any] = {"ph": "i", "s": "t"} if event.seconds is None else {"ph": "X", "dur": end - begin}
    return {"name": event.name, "cat": _CATEGORY, **kind, "ts": max(begin, earliest), "args": event.facts}


def _microseconds(seconds: float) -> int:
    return round(1e6 * seconds)
