/* TCP sockets: state changes, round-trip times, retransmissions. */

#define WHAT_STATE 1
#define WHAT_RTT 2
#define WHAT_RETRANSMIT 3
#define STATE_SYN_SENT 2
#define STATE_SYN_RECV 3
#define STATE_CLOSE 7
#define STATE_LISTEN 10
#define RTT_INTERVAL_NS 100000000 /* at most ten round-trip records a second for one socket */

/* When a socket's round trip was last recorded. */
BPF_TABLE("lru_hash", u64, u64, rtt_recorded, 16384);

#ifdef QUICK
/*
 * The same by the cookie without a call: half a number of the socket, half a time in 1024 us. Another socket may have taken the place,
 * so that it is asked for in rtt_recorded.
 */
#define RTT_PLACES 4096
BPF_ARRAY(rtt_places, u64, RTT_PLACES);

static __always_inline u64 *rtt_place(u64 cookie)
{
	u32 index = cookie % RTT_PLACES;

	return rtt_places.lookup(&index);
}

static __always_inline bool rtt_is_recent(struct bpf_sock_ops *ops)
{
	struct bpf_sock *sk = ops->sk;
	u64 cookie, now_us, *place, noted;
	u32 age;

	if (!sk)
		return false;
	cookie = cookie_of((u64)sk);
	place = rtt_place(cookie);
	LOAD_MEMBER(u64, now_us, (u64)sk, tcp_sock, OFF_tcp_sock_tcp_mstamp);
	if (!place)
		return false;
	noted = *place;
	age = (u32)(now_us >> 10) - (u32)noted;
	return noted >> 32 == cookie * MIX >> 32 && age < RTT_INTERVAL_NS / 1024000;
}

static __always_inline void note_rtt(u64 cookie, u64 at_ns)
{
	u64 *place = rtt_place(cookie);

	if (place)
		*place = (cookie * MIX >> 32 << 32) | (u32)(at_ns / 1000 >> 10);
}
#else
#define rtt_is_recent(ops) false
#define note_rtt(cookie, at_ns) do { } while (0)
#endif

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
		/* Volatile: the verifier takes no two members read at once. */
		local[0] = *(volatile u32 *)&ops->local_ip6[0];
		local[1] = *(volatile u32 *)&ops->local_ip6[1];
		local[2] = *(volatile u32 *)&ops->local_ip6[2];
		local[3] = *(volatile u32 *)&ops->local_ip6[3];
		remote[0] = *(volatile u32 *)&ops->remote_ip6[0];
		remote[1] = *(volatile u32 *)&ops->remote_ip6[1];
		remote[2] = *(volatile u32 *)&ops->remote_ip6[2];
		last = *(volatile u32 *)&ops->remote_ip6[3];
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
#ifdef TRIGGER_SOCKETS
	struct socket_event *e = &event;

	TRIGGER_SOCKETS(e);
#endif
	submit(&event, sizeof(event), COUNT_RECORDED_SOCKET, COUNT_SOCKET_NO_SPACE);
}

#ifdef HAVE_TCP_BTF
/*
 * Stacks cannot be taken where retransmissions are recorded, but at the tracepoint, which comes next on the same processor: it learns
 * here of which socket one was recorded.
 */
BPF_PERCPU_ARRAY(retransmitted, u64, 1);
BPF_ARRAY(retransmissions, u64, 16); /* how many there were, by state of the socket */

static __always_inline void note_retransmission(u64 cookie)
{
	int zero = 0;
	u64 *last = retransmitted.lookup(&zero);

	if (last)
		*last = cookie;
}

/* True once where the socket's retransmission was recorded. */
static __always_inline bool was_recorded(u64 cookie)
{
	int zero = 0;
	u64 *last = retransmitted.lookup(&zero);

	if (!last || !cookie || *last != cookie)
		return false;
	*last = 0;
	return true;
}

static __always_inline void retransmission_stack(struct bpf_raw_tracepoint_args *ctx, u64 cookie, u8 state)
{
	u32 index = state & 15;
	u64 *before = retransmissions.lookup(&index), number;
	struct stack_event event = {};

	if (!before)
		return;
	number = *(volatile u64 *)before;
	__sync_fetch_and_add(before, 1);
	if (!takes_stack(number))
		return;
	event.stack = kernel_stacks.get_stackid(ctx, 0);
	if (event.stack < 0)
		return;
	FILL_HEADER(&event, EVENT_STACK, bpf_ktime_get_ns(), 0);
	event.socket_cookie = cookie;
	submit(&event, sizeof(event), COUNT_RECORDED_STACK, COUNT_STACK_NO_SPACE);
}

#define ASKED_RETRANSMITS 2 /* BPF_SOCK_OPS_RETRANS_CB_FLAG in tcp_sock.bpf_sock_ops_cb_flags */
#define ASKED_STATES 4	    /* BPF_SOCK_OPS_STATE_CB_FLAG */
#define PROTOCOL_TCP 6

/*
 * Connections older than the recording were never asked for callbacks, so socket_ops does not hear of them. The tracepoints
 * see all sockets; these programs leave out those that were asked. True where a record was made.
 */
static __always_inline bool older_socket(u64 sk, u8 asked, u8 what, u8 old_state, u8 new_state, u32 segments)
{
	struct socket_event event = {};
	u64 net = 0, common = sk + OFF_sock___sk_common;
	u16 protocol = 0, family = 0, port = 0;
	u8 flags = 0;

	if (!READ_KERNEL(protocol, sk, OFF_sock_sk_protocol) || protocol != PROTOCOL_TCP ||
	    !READ_KERNEL(flags, sk, OFF_tcp_sock_bpf_sock_ops_cb_flags) || (flags & asked))
		return false;
	READ_KERNEL(event.socket_cookie, common, OFF_sock_common_skc_cookie);
#ifdef SCOPED
	if (!scope_cookies.lookup(&event.socket_cookie))
		return false;
#endif
	FILL_HEADER(&event, EVENT_SOCKET, bpf_ktime_get_ns(), 0);
	if (READ_KERNEL(net, common, OFF_sock_common_skc_net) && net)
		READ_KERNEL(event.netns_cookie, net, OFF_net_net_cookie);
	READ_KERNEL(event.bytes_acked, sk, OFF_tcp_sock_bytes_acked);
	READ_KERNEL(event.bytes_received, sk, OFF_tcp_sock_bytes_received);
	READ_KERNEL(family, common, OFF_sock_common_skc_family);
	event.family = family;
	event.what = what;
	event.old_state = old_state;
	event.new_state = new_state;
	/* Not skc_num: a socket that closes has given its port back already. */
	READ_KERNEL(port, sk, OFF_inet_sock_inet_sport);
	event.local_port = bpf_ntohs(port);
	READ_KERNEL(port, common, OFF_sock_common_skc_dport);
	event.remote_port = bpf_ntohs(port);
	if (family == FAMILY_INET6) {
		READ_KERNEL(event.local_ip, common, OFF_sock_common_skc_v6_rcv_saddr);
		READ_KERNEL(event.remote_ip, common, OFF_sock_common_skc_v6_daddr);
	} else {
		*(u32 *)&event.local_ip[8] = bpf_htonl(0xffff);
		*(u32 *)&event.remote_ip[8] = bpf_htonl(0xffff);
		READ_KERNEL(*(u32 *)&event.local_ip[12], common, OFF_sock_common_skc_rcv_saddr);
		READ_KERNEL(*(u32 *)&event.remote_ip[12], common, OFF_sock_common_skc_daddr);
	}
	READ_KERNEL(event.srtt_us, sk, OFF_tcp_sock_srtt_us);
	event.srtt_us >>= 3;
	READ_KERNEL(event.total_retransmits, sk, OFF_tcp_sock_total_retrans);
	READ_KERNEL(event.congestion_window, sk, OFF_tcp_sock_snd_cwnd);
	event.segments = segments;
#ifdef TRIGGER_SOCKETS
	struct socket_event *e = &event;

	TRIGGER_SOCKETS(e);
#endif
	return submit(&event, sizeof(event), COUNT_RECORDED_SOCKET, COUNT_SOCKET_NO_SPACE);
}

int older_socket_state(struct bpf_raw_tracepoint_args *ctx)
{
	u64 old_state = ctx->args[1], new_state = ctx->args[2];

	if (new_state == STATE_SYN_SENT || new_state == STATE_SYN_RECV || new_state == STATE_LISTEN)
		return 0; /* a new socket, which socket_ops asks for callbacks a moment later */
	older_socket(ctx->args[0], ASKED_STATES, WHAT_STATE, old_state, new_state, 0);
	return 0;
}

int socket_retransmits(struct bpf_raw_tracepoint_args *ctx)
{
	u64 sk = ctx->args[0], cookie = 0;
	u8 state = 0;

	READ_KERNEL(state, sk, OFF_sock___sk_common + OFF_sock_common_skc_state);
	READ_KERNEL(cookie, sk, OFF_sock___sk_common + OFF_sock_common_skc_cookie);
	if (was_recorded(cookie) || older_socket(sk, ASKED_RETRANSMITS, WHAT_RETRANSMIT, state, state, 1))
		retransmission_stack(ctx, cookie, state);
	return 0;
}
#else
#define note_retransmission(cookie) do { } while (0)
#endif

int socket_ops(struct bpf_sock_ops *ops)
{
	u64 cookie, now, *last;

#ifdef SCOPE_SOCKETS
	struct bpf_sock *sk = ops->sk;

	if (!sk || !socket_in_scope(sk, bpf_get_socket_cookie(ops)))
		return 1;
#endif
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
		if (rtt_is_recent(ops))
			break;
		now = bpf_ktime_get_ns();
		cookie = bpf_get_socket_cookie(ops);
		last = rtt_recorded.lookup(&cookie);
		if (last && now - *last < RTT_INTERVAL_NS) {
			note_rtt(cookie, *last);
			break;
		}
		rtt_recorded.update(&cookie, &now);
		note_rtt(cookie, now);
		socket_record(ops, WHAT_RTT, ops->state, ops->state, 0);
		break;
	case BPF_SOCK_OPS_RETRANS_CB:
		socket_record(ops, WHAT_RETRANSMIT, ops->state, ops->state, ops->args[1]);
		note_retransmission(bpf_get_socket_cookie(ops));
		break;
	}
	return 1;
}
