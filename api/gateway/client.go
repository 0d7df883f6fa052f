package gateway

import (
	"hash/maphash"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// clientOf is the address that a request comes from, for limits. What a proxy says of its client counts only when the proxy
// is one of those that are trusted: anybody can write a header.
func clientOf(r *http.Request, trusted []netip.Prefix) netip.Addr {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{} // not TCP: all such clients are one
	}
	client := peer.Addr().Unmap()
	isTrusted := func(a netip.Addr) bool {
		return slices.ContainsFunc(trusted, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	if len(trusted) == 0 || !isTrusted(client) {
		return client
	}
	hops := strings.Split(strings.Join(r.Header["X-Forwarded-For"], ","), ",")
	for _, hop := range slices.Backward(hops) { // each proxy adds at the end
		address, err := netip.ParseAddr(strings.TrimSpace(hop))
		if err != nil {
			return client
		}
		if client = address.Unmap(); !isTrusted(client) {
			return client
		}
	}
	return client
}

// addressKey is one for all addresses that a single client has at hand: a whole /64 of IPv6 is given to each.
func addressKey(seed maphash.Seed, address netip.Addr) uint64 {
	if address.Is6() {
		const network = 64
		prefix, err := address.WithZone("").Prefix(network)
		if err == nil {
			address = prefix.Addr()
		}
	}
	return maphash.Comparable(seed, address)
}
