/*
 * What of `record --filter` the kernel decides: PACKET_TEST and CALL_TEST are C that stratokit/filters/kernel.py makes. What
 * they let pass is looked at again when converting, so a packet that cannot be read here passes.
 */

#ifdef PACKET_TEST
#define PROTO_TCP 6
#define PROTO_UDP 17
#define HEAD_BYTES_READ 12 /* of payload: enough for a request line's method and for the counts of a DNS message */

struct packet_facts {
	u32 src[4], dst[4]; /* network order; IPv4 in the last word */
	u32 version, proto, direction, bytes, payload_bytes, flags, sport, dport;
	bool http, dns; /* the conversation may carry it */
};

#ifdef TEST_CONVERSATIONS
/* What the first payload of a connection said, by socket. */
#define SEEN_BEGIN 1 /* the handshake was seen, payload was not */
#define SEEN_DECIDED 2
#define SEEN_HTTP 4
#define SEEN_DNS 8
BPF_TABLE("lru_hash", u64, u8, conversation_seen, 65536);

static __always_inline bool upper(u8 byte)
{
	return byte >= 'A' && byte <= 'Z';
}

/*
 * A method or HTTP/ is upper case. Before it may stand an empty line, SOCKS (4, 5) or PROXY. A connection whose beginning was
 * not seen may be in the middle of HTTP/2: a frame of less than 64 KiB (RFC 9113 section 4.1).
 */
static __always_inline bool may_be_http(u8 *head, bool begins)
{
	if (upper(head[0]) && upper(head[1]) && upper(head[2]))
		return true;
	if (head[0] == '\r' || head[0] == '\n')
		return true;
	if (begins)
		return head[0] == 4 || head[0] == 5;
	return head[0] == 0 && head[3] < 16 && head[5] < 128;
}

/* A number for the segment's connection: its socket, or at a device, where none is known, the same for both directions. */
static __always_inline u64 connection(struct __sk_buff *skb, struct packet_facts *p)
{
#ifdef WITH_DEVICES
	u64 ends[2] = {p->sport + 1, p->dport + 1};

#pragma unroll
	for (int i = 0; i < 4; i++) {
		ends[0] = (ends[0] ^ p->src[i]) * 0x9e3779b97f4a7c15ULL;
		ends[1] = (ends[1] ^ p->dst[i]) * 0x9e3779b97f4a7c15ULL;
		ends[0] ^= ends[0] >> 29;
		ends[1] ^= ends[1] >> 29;
	}
	return ends[0] + ends[1];
#else
	return bpf_get_socket_cookie(skb);
#endif
}

/* The verdict on a segment's connection; the bits of conversation_seen that hold for this segment. */
static __always_inline u8 look_at_stream(struct __sk_buff *skb, struct packet_facts *p, u32 payload_at)
{
	u64 cookie = connection(skb, p);
	u8 *before = conversation_seen.lookup(&cookie), state = before ? *before : 0, head[HEAD_BYTES_READ] = {};

	if (p->flags & 2) {
		/* Carried by the listener while it is being set up; the connection's own socket begins without a state. */
		state = SEEN_BEGIN;
		conversation_seen.update(&cookie, &state);
		return SEEN_HTTP | SEEN_DNS;
	}
	if (state & SEEN_DECIDED)
		return state;
	if (p->payload_bytes < sizeof(head) || bpf_skb_load_bytes(skb, payload_at, head, sizeof(head)))
		return state & SEEN_BEGIN || p->payload_bytes ? SEEN_HTTP | SEEN_DNS : state;
	if (may_be_http(head, state & SEEN_BEGIN))
		state |= SEEN_HTTP | SEEN_DECIDED;
	if (head[6] == 0 && head[7] == 1)
		state |= SEEN_DNS | SEEN_DECIDED;
	if (state & SEEN_BEGIN)
		state |= SEEN_DECIDED;
	/* Without a beginning it stays open: the next request may tell. */
	conversation_seen.update(&cookie, &state);
	return state;
}

static __always_inline void look_at_payload(struct __sk_buff *skb, struct packet_facts *p, u32 payload_at)
{
	bool dns_port = p->sport == 53 || p->dport == 53 || p->sport == 5353 || p->dport == 5353 || p->sport == 5355 ||
			p->dport == 5355;
	u8 seen, head[6] = {};

	if (p->proto == PROTO_UDP) {
		if (p->payload_bytes >= 12 && p->sport != 137 && p->dport != 137 &&
		    bpf_skb_load_bytes(skb, payload_at, head, sizeof(head)) == 0 && head[4] == 0 && head[5] == 1)
			dns_port = true;
		p->dns = dns_port;
	} else if (p->proto == PROTO_TCP) {
		seen = look_at_stream(skb, p, payload_at);
		p->http = seen & SEEN_HTTP;
		p->dns = dns_port || seen & SEEN_DNS;
	}
}
#endif

/*
 * False where the headers are none that are known here: fragments, extension headers, tunnels. The IP header is at `base`;
 * behind a packet of a frame may stand bytes that only fill the frame up.
 */
static __always_inline bool read_facts(struct __sk_buff *skb, u32 base, u32 direction, u32 bytes,
				       struct packet_facts *p)
{
	u8 ip[40], transport[20] = {};
	u32 at, header, whole = skb->len;

	if (bpf_skb_load_bytes(skb, base, ip, 20))
		return false;
	p->version = ip[0] >> 4;
	p->direction = direction;
	p->bytes = bytes;
	if (p->version == 4) {
		at = base + (ip[0] & 15) * 4;
		p->proto = ip[9];
		if (base && (ip[2] || ip[3]))
			whole = base + (ip[2] << 8 | ip[3]);
		p->src[3] = *(u32 *)&ip[12];
		p->dst[3] = *(u32 *)&ip[16];
		if ((ip[6] & 0x3f) || ip[7])
			return false;
	} else if (p->version == 6) {
		if (bpf_skb_load_bytes(skb, base, ip, 40))
			return false;
		at = base + 40;
		p->proto = ip[6];
		if (base && (ip[4] || ip[5]))
			whole = base + 40 + (ip[4] << 8 | ip[5]);
#pragma unroll
		for (int i = 0; i < 4; i++) {
			p->src[i] = *(u32 *)&ip[8 + 4 * i];
			p->dst[i] = *(u32 *)&ip[24 + 4 * i];
		}
	} else {
		return false;
	}
	if (p->proto != PROTO_TCP && p->proto != PROTO_UDP)
		return p->proto == 1 || p->proto == 58 || p->proto == 132;
	header = p->proto == PROTO_TCP ? 20 : 8;
	if (bpf_skb_load_bytes(skb, at, transport, 8))
		return false;
	if (p->proto == PROTO_TCP && bpf_skb_load_bytes(skb, at, transport, 20))
		return false;
	p->sport = transport[0] << 8 | transport[1];
	p->dport = transport[2] << 8 | transport[3];
	if (p->proto == PROTO_TCP) {
		header = (transport[12] >> 4) * 4;
		p->flags = (transport[12] & 1) << 8 | transport[13];
	} else if (p->sport == 4789 || p->dport == 4789 || p->dport == 6081 || p->dport == 2152) {
		return false; /* VXLAN, GENEVE, GTP-U: rows describe what is inside */
	}
	if (at + header > whole)
		return false;
	p->payload_bytes = whole - at - header;
#ifdef TEST_CONVERSATIONS
	look_at_payload(skb, p, at + header);
#endif
	return true;
}

static __always_inline bool packet_wanted(struct __sk_buff *skb, u32 direction)
{
	struct packet_facts facts = {}, *p = &facts;

	if (!read_facts(skb, 0, direction, skb->len, p))
		return true;
	return PACKET_TEST;
}

/* As packet_wanted for a frame of `bytes` whose link-layer header takes `base`; anything but plain IP in it passes. */
static __always_inline bool frame_wanted(struct __sk_buff *skb, u32 base, u32 direction, u32 bytes)
{
	struct packet_facts facts = {}, *p = &facts;
	u16 type = 0;

	if (base >= 2 && bpf_skb_load_bytes(skb, base - 2, &type, sizeof(type)) == 0 &&
	    type != bpf_htons(0x0800) && type != bpf_htons(0x86dd))
		return true;
	if (!read_facts(skb, base, direction, bytes, p))
		return true;
	return PACKET_TEST;
}
#endif
