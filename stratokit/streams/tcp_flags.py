"""The bits of the column tcp_analysis; the names are those of Wireshark's fields tcp.analysis.*

Without any import, for what names these fields shall not load what computes them.
"""

(
    RETRANSMISSION,
    FAST_RETRANSMISSION,
    SPURIOUS_RETRANSMISSION,
    OUT_OF_ORDER,
    LOST_SEGMENT,
    ACK_LOST_SEGMENT,
    DUPLICATE_ACK,
    KEEP_ALIVE,
    KEEP_ALIVE_ACK,
    ZERO_WINDOW,
    ZERO_WINDOW_PROBE,
    ZERO_WINDOW_PROBE_ACK,
    WINDOW_FULL,
    WINDOW_UPDATE,
    REUSED_PORTS,
    RTO_RETRANSMISSION,
    DUPLICATE_SACK,
) = (1 << bit for bit in range(17))
FLAG_NAMES = (
    "retransmission",
    "fast_retransmission",
    "spurious_retransmission",
    "out_of_order",
    "lost_segment",
    "ack_lost_segment",
    "duplicate_ack",
    "keep_alive",
    "keep_alive_ack",
    "zero_window",
    "zero_window_probe",
    "zero_window_probe_ack",
    "window_full",
    "window_update",
    "reused_ports",
    "rto_retransmission",
    "duplicate_sack",
)  # of bit 0, 1, ...
