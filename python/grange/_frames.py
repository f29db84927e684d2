"""The bytes of frames, where protobuf's own way is too slow: a request is serialized once, whatever number it gets."""

from grange._wire import wire_pb2 as pb


def varint(n):
    """An unsigned number as protobuf writes it."""
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


_REQUEST_TAG = varint(40 << 3 | 2)  # of Frame.request


def request_body(request):
    """The part of a Frame that holds this Request."""
    data = request.SerializeToString()
    return _REQUEST_TAG + varint(len(data)) + data


def numbered(seq, ack, body):
    """A whole Frame with its number, what it acknowledges, and its body."""
    return b"\x08" + varint(seq) + b"\x10" + varint(ack) + body


def follow(job_id, have):
    """A Request for the outcomes of a job, less the ranges [first, end) in `have`."""
    request = pb.Request()
    request.follow.job_id = job_id
    for first, end in have:
        request.follow.have_first.append(first)
        request.follow.have_end.append(end)
    return request
