"""Write a trace of JSON events with Perfetto's published protobuf classes, and read it again.

`write_trace` does what Perfetto's own reader of JSON does. Processes and threads become tracks,
each event becomes the begin and the end of a slice, and each value of a counter has its track.
`read_trace` follows the bytes by Perfetto's rules alone, and knows nothing of JSON or of termite.
Both raise Refused where the rules are broken.
"""

import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace, TracePacket, TrackEvent
from perfetto.trace_builder.proto_builder import TraceProtoBuilder

SEQUENCE = 1
Key = tuple[object, ...]  # of a track: a process, a process with a thread, or a counter


class Refused(Exception):
    """The trace breaks a rule of Perfetto."""


@dataclass(frozen=True, slots=True)
class Slice:
    """One slice of a track. Times are nanoseconds, and `depth` counts the slices around it."""

    process: str
    thread: str
    name: str
    start_ns: int
    end_ns: int
    depth: int
    arguments: dict[str, Any]


@dataclass(slots=True)
class ReadTrace:
    """A trace as it was read: its slices in the order of their ends, and its counters by name."""

    slices: list[Slice] = field(default_factory=list)
    counters: defaultdict[str, list[tuple[int, float]]] = field(default_factory=lambda: defaultdict(list))


class _Writer:
    def __init__(self) -> None:
        self._builder = TraceProtoBuilder()
        self._tracks: dict[Key, int] = {}
        self._names: dict[Key, str] = {}

    def write(self, events: list[dict[str, Any]]) -> bytes:
        slices: defaultdict[Key, list[dict[str, Any]]] = defaultdict(list)
        timed: list[tuple[int, TracePacket]] = []
        for event in events:
            match event["ph"]:
                case "M":
                    self._take_name(event)
                case "X":
                    slices[event["pid"], event["tid"]].append(event)
                case "C":
                    timed += [self._counter(event, key, value) for key, value in event["args"].items()]
                case other:
                    raise Refused(f"phase {other}")
        for key, of_track in slices.items():
            timed += self._slices(self._thread_track(key), of_track)
        for _, packet in sorted(timed, key=lambda entry: entry[0]):  # stable: equal times keep their order
            self._builder.add_packet().CopyFrom(packet)
        written: bytes = self._builder.serialize()
        return written

    def _take_name(self, event: dict[str, Any]) -> None:
        match event["name"]:
            case "process_name":
                self._names[(event["pid"],)] = event["args"]["name"]
            case "thread_name":
                self._names[event["pid"], event["tid"]] = event["args"]["name"]

    def _track(self, key: Key) -> tuple[int, Any]:
        """Return the number of a track, and its descriptor if it is new."""
        if key in self._tracks:
            return self._tracks[key], None
        self._tracks[key] = len(self._tracks) + 1
        packet = self._builder.add_packet()
        packet.trusted_packet_sequence_id = SEQUENCE
        packet.track_descriptor.uuid = self._tracks[key]
        return self._tracks[key], packet.track_descriptor

    def _process_track(self, process: int) -> int:
        uuid, descriptor = self._track((process,))
        if descriptor is not None:
            descriptor.process.pid = process
            descriptor.process.process_name = self._names[(process,)]
        return uuid

    def _thread_track(self, key: Key) -> int:
        process, thread = key
        assert isinstance(process, int) and isinstance(thread, int)
        parent = self._process_track(process)
        uuid, descriptor = self._track(key)
        if descriptor is not None:
            descriptor.parent_uuid = parent
            descriptor.thread.pid, descriptor.thread.tid = process, thread
            descriptor.thread.thread_name = self._names[key]
        return uuid

    def _counter(self, event: dict[str, Any], key: str, value: float) -> tuple[int, TracePacket]:
        parent = self._process_track(event["pid"])
        uuid, descriptor = self._track((event["pid"], event["name"], key))
        if descriptor is not None:
            descriptor.parent_uuid, descriptor.name = parent, f"{event['name']} {key}"
            descriptor.counter.SetInParent()
        packet = self._event(uuid, event["ts"] * 1000, TrackEvent.TYPE_COUNTER)
        packet.track_event.double_counter_value = value
        return packet.timestamp, packet

    def _slices(self, uuid: int, events: list[dict[str, Any]]) -> list[tuple[int, TracePacket]]:
        found: list[tuple[int, TracePacket]] = []
        open_until: list[int] = []

        def close(until_ns: int) -> None:
            while open_until and open_until[-1] <= until_ns:
                end_ns = open_until.pop()
                found.append((end_ns, self._event(uuid, end_ns, TrackEvent.TYPE_SLICE_END)))

        for event in sorted(events, key=lambda event: (event["ts"], -event["dur"])):
            begin_ns, end_ns = event["ts"] * 1000, (event["ts"] + event["dur"]) * 1000
            close(begin_ns)
            if open_until and end_ns > open_until[-1]:
                raise Refused(f"{event['name']} ends after the slice around it")
            packet = self._event(uuid, begin_ns, TrackEvent.TYPE_SLICE_BEGIN)
            packet.track_event.name = event["name"]
            for name, value in event["args"].items():
                annotation = packet.track_event.debug_annotations.add()
                annotation.name, annotation.legacy_json_value = name, json.dumps(value)
            found.append((begin_ns, packet))
            open_until.append(end_ns)
        close(max(open_until, default=0))
        return found

    def _event(self, uuid: int, at_ns: int, kind: int) -> TracePacket:
        packet = TracePacket()
        packet.timestamp = at_ns  # a negative time does not fit, and is refused by the class
        packet.trusted_packet_sequence_id = SEQUENCE
        packet.track_event.type, packet.track_event.track_uuid = kind, uuid
        return packet


def write_trace(events: list[dict[str, Any]]) -> bytes:
    """Return JSON events as a trace of packets."""
    return _Writer().write(events)


def read_trace(written: bytes) -> ReadTrace:
    """Return what a trace of packets says."""
    trace = Trace()
    trace.ParseFromString(written)
    descriptors: dict[int, Any] = {}
    stacks: defaultdict[int, list[TrackEvent]] = defaultdict(list)
    began_ns: defaultdict[int, list[int]] = defaultdict(list)
    read, last_ns = ReadTrace(), 0
    for packet in trace.packet:
        if packet.HasField("track_descriptor"):
            descriptors[packet.track_descriptor.uuid] = packet.track_descriptor
            continue
        event, uuid = packet.track_event, packet.track_event.track_uuid
        if uuid not in descriptors or packet.timestamp < last_ns:
            raise Refused(f"an event without a track, or before the one before it: {packet}")
        last_ns, descriptor = packet.timestamp, descriptors[uuid]
        match event.type:
            case TrackEvent.TYPE_SLICE_BEGIN:
                stacks[uuid].append(event)
                began_ns[uuid].append(packet.timestamp)
            case TrackEvent.TYPE_SLICE_END if stacks[uuid]:
                begun = stacks[uuid].pop()
                arguments = {one.name: json.loads(one.legacy_json_value) for one in begun.debug_annotations}
                process = descriptors[descriptor.parent_uuid].process.process_name
                times = (began_ns[uuid].pop(), packet.timestamp)
                found = Slice(process, descriptor.thread.thread_name, begun.name, *times, len(stacks[uuid]), arguments)
                read.slices.append(found)
            case TrackEvent.TYPE_COUNTER if descriptor.HasField("counter"):
                read.counters[descriptor.name].append((packet.timestamp, event.double_counter_value))
            case _:
                raise Refused(f"an end without a begin, or a counter on a track of slices: {packet}")
    if any(stacks.values()):
        raise Refused("a slice has no end")
    return read
