/* TCP sockets: state changes, round-trip times, retransmissions. */

#define WHAT_STATE 1
#define WHAT_RTT 2
#define WHAT_RETRANSMIT 3
#define STATE_SYN_SENT 2
#define STATE_CLOSE 7
#define STATE_LISTEN 10
#define RTT_INTERVAL_NS 100000000 /* at most ten round-trip records a second for one socket */

/* When a socket's round trip was last recorded. */
BPF_TABLE("lru_hash", u64, u64, rtt_recorded, 16384);

static __always_inline void socket_record(struct bpf_sock_ops *ops, u8 what, u8 old_state,
					  u8 new_state, u32 segments)
{
	struct socket_event event = {};

	FILL_HEADER(&event, EVENT_SOCKET, bpf_ktime_get_ns(), 0);
	event.socket_cookie = bpf_get_socket_cookie(ops);
	event.netns_cookie = bpf_get_netns_cookie(ops);
	event.bytes_acked = ops->bytes_acked;
	event.bytes_received = ops->bytes_received;
	event.family = ops->family;
	event.what = what;
	event.old_state = old_state;
	event.new_state = new_state;
	/* local_port is in host order, remote_port in the upper half in network order. */
	event.local_port = ops->local_port;
	event.remote_port = bpf_ntohl(ops->remote_port);
	u32 *local = (u32 *)event.local_ip;
	u32 *remote = (u32 *)event.remote_ip;
	u32 last;

	if (ops->family == FAMILY_INET6) {
		local[0] = ops->local_ip6[0];
		local[1] = ops->local_ip6[1];
		local[2] = ops->local_ip6[2];
		local[3] = ops->local_ip6[3];
		remote[0] = ops->remote_ip6[0];
		remote[1] = ops->remote_ip6[1];
		remote[2] = ops->remote_ip6[2];
		last = ops->remote_ip6[3];
		OPAQUE(last); /* or the compiler joins both branches to one read through a moved context pointer */
	} else {
		local[2] = bpf_htonl(0xffff);
		local[3] = ops->local_ip4;
		remote[2] = bpf_htonl(0xffff);
		last = ops->remote_ip4;
		OPAQUE(last);
	}
	remote[3] = last;
	/* The kernel keeps eighths. Newer ones hand the value over before they store it. */
	event.srtt_us = (what == WHAT_RTT && ops->args[1] ? ops->args[1] : ops->srtt_us) >> 3;
	event.total_retransmits = ops->total_retrans;
	event.congestion_window = ops->snd_cwnd;
	event.segments = segments;
	submit(&event, sizeof(event), COUNT_RECORDED_SOCKET, COUNT_SOCKET_NO_SPACE);
}

int socket_ops(struct bpf_sock_ops *ops)
{
	u64 cookie, now, *last;

	switch (ops->op) {
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
		/* Called with the state already SYN_SENT and before callbacks can be asked for. */
		bpf_sock_ops_cb_flags_set(ops, BPF_SOCK_OPS_STATE_CB_FLAG | BPF_SOCK_OPS_RTT_CB_FLAG |
						       BPF_SOCK_OPS_RETRANS_CB_FLAG);
		socket_record(ops, WHAT_STATE, STATE_CLOSE, STATE_SYN_SENT, 0);
		break;
	case BPF_SOCK_OPS_TCP_LISTEN_CB:
		bpf_sock_ops_cb_flags_set(ops, BPF_SOCK_OPS_STATE_CB_FLAG | BPF_SOCK_OPS_RTT_CB_FLAG |
						       BPF_SOCK_OPS_RETRANS_CB_FLAG);
		socket_record(ops, WHAT_STATE, STATE_CLOSE, STATE_LISTEN, 0);
		break;
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		/* The listener may be older than the recording and its children without flags. */
		bpf_sock_ops_cb_flags_set(ops, BPF_SOCK_OPS_STATE_CB_FLAG | BPF_SOCK_OPS_RTT_CB_FLAG |
						       BPF_SOCK_OPS_RETRANS_CB_FLAG);
		break;
	case BPF_SOCK_OPS_STATE_CB:
		if (ops->args[0] == ops->args[1])
			break; /* close after shutdown sets FIN_WAIT1 again */
		socket_record(ops, WHAT_STATE, ops->args[0], ops->args[1], 0);
		break;
	case BPF_SOCK_OPS_RTT_CB:
		now = bpf_ktime_get_ns();
		cookie = bpf_get_socket_cookie(ops);
		last = rtt_recorded.lookup(&cookie);
		if (last && now - *last < RTT_INTERVAL_NS)
			break;
		rtt_recorded.update(&cookie, &now);
		socket_record(ops, WHAT_RTT, ops->state, ops->state, 0);
		break;
	case BPF_SOCK_OPS_RETRANS_CB:
		socket_record(ops, WHAT_RETRANSMIT, ops->state, ops->state, ops->args[1]);
		break;
	}
	return 1;
}
