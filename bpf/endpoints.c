/*
 * Whose frames are whose. A device knows no sockets; sockets see their packets at the IP layer. There the addresses of each are
 * noted once, and rows of frames find their socket by them.
 */

#define PROTOCOL_ICMP 1
#define ENDPOINT_TCP 6
#define ENDPOINT_UDP 17
#define PROTOCOL_ICMP6 58

struct endpoint_key {
	u64 cookie;
	u32 local[4], remote[4];
	u16 local_port, remote_port;
	u32 protocol;
};
/* Each with the epoch in which it was told last; the recorder begins a new one with each spool. */
BPF_TABLE("lru_hash", struct endpoint_key, u32, endpoints_known, 65536);
BPF_ARRAY(endpoint_epoch, u32, 1);

static __always_inline int endpoint(struct __sk_buff *skb, bool out)
{
	struct endpoint_key key = {};
	struct endpoint_event event = {};
	u8 ip[40], ports[8] = {};
	u32 *epoch, *told;
	int zero = 0;
	u32 *from = out ? key.local : key.remote, *to = out ? key.remote : key.local;
	u64 sk = 0, net = 0;
	u32 at;
	u16 fragment = 0;

	key.cookie = bpf_get_socket_cookie(skb);
	if (!key.cookie || bpf_skb_load_bytes(skb, 0, ip, 20))
		return 1;
	if (ip[0] >> 4 == 4) {
		at = (ip[0] & 15) * 4;
		key.protocol = ip[9];
		key.local[2] = key.remote[2] = bpf_htonl(0xffff);
		from[3] = *(u32 *)&ip[12];
		to[3] = *(u32 *)&ip[16];
		fragment = (ip[6] & 0x1f) << 8 | ip[7];
	} else {
		if (bpf_skb_load_bytes(skb, 0, ip, 40))
			return 1;
		at = 40;
		key.protocol = ip[6];
#pragma unroll
		for (int i = 0; i < 4; i++) {
			from[i] = *(u32 *)&ip[8 + 4 * i];
			to[i] = *(u32 *)&ip[24 + 4 * i];
		}
	}
	if (fragment)
		return 1;
	if (key.protocol == ENDPOINT_TCP || key.protocol == ENDPOINT_UDP) {
		if (bpf_skb_load_bytes(skb, at, ports, 4))
			return 1;
		key.local_port = out ? ports[0] << 8 | ports[1] : ports[2] << 8 | ports[3];
		key.remote_port = out ? ports[2] << 8 | ports[3] : ports[0] << 8 | ports[1];
	} else if (key.protocol == PROTOCOL_ICMP || key.protocol == PROTOCOL_ICMP6) {
		/* The identifier of an echo tells one ping from another (RFC 792, RFC 4443 section 4.1). */
		if (bpf_skb_load_bytes(skb, at, ports, 8))
			return 1;
		if (ports[0] == 0 || ports[0] == 8 || ports[0] == 128 || ports[0] == 129)
			key.local_port = ports[4] << 8 | ports[5];
	}
	epoch = endpoint_epoch.lookup(&zero);
	told = endpoints_known.lookup(&key);
	if (!epoch || (told && *told == *epoch))
		return 1;
	endpoints_known.update(&key, epoch);
	FILL_HEADER(&event, EVENT_ENDPOINT, bpf_ktime_get_ns(), 0);
	event.socket_cookie = key.cookie;
	if (READ_KERNEL(sk, skb, OFF_sk_buff_sk) && sk &&
	    READ_KERNEL(net, sk, OFF_sock___sk_common + OFF_sock_common_skc_net) && net)
		READ_KERNEL(event.netns_cookie, net, OFF_net_net_cookie);
	__builtin_memcpy(event.local_ip, key.local, 16);
	__builtin_memcpy(event.remote_ip, key.remote, 16);
	event.local_port = key.local_port;
	event.remote_port = key.remote_port;
	event.protocol = key.protocol;
	submit(&event, sizeof(event), COUNT_RECORDED_ENDPOINT, COUNT_ENDPOINT_NO_SPACE);
	return 1;
}

static __always_inline int sends(struct __sk_buff *skb)
{
	note_user(skb);
	return endpoint(skb, true);
}

MEASURED(endpoint_out, COST_PACKETS, struct __sk_buff, sends(ctx))
MEASURED(endpoint_in, COST_PACKETS, struct __sk_buff, endpoint(ctx, false))
