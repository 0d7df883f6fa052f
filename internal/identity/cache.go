package identity

import (
	"crypto/sha256"
	"sync"
	"time"
)

// tokenKey stands for a token, which itself is not kept. The hash is a cryptographic one: a forged token must not be found in place
// of a good one.
type tokenKey [sha256.Size]byte

func keyOf(token string) tokenKey {
	var usual [512]byte // keeps the copy off the heap
	return sha256.Sum256(append(usual[:0], token...))
}

type verified struct {
	principal Principal
	expires   time.Time
	key       *publicKey // that it was verified with
}

// cache remembers tokens that were found good, about size of them at most. It has two halves: when the younger is full it becomes
// the older, which is forgotten, so that the tokens in use stay.
type cache struct {
	size int

	mu             sync.Mutex
	younger, older map[tokenKey]verified
}

func newCache(size int) *cache { return &cache{size: size, younger: map[tokenKey]verified{}} }

// get returns who a token speaks for that was verified, has not expired, and whose key still holds.
func (c *cache) get(key tokenKey, now time.Time) (Principal, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, young := c.younger[key]
	if !young {
		v = c.older[key]
	}
	if !now.Before(v.expires) || v.key.gone.Load() {
		return Principal{}, false
	}
	if !young {
		c.add(key, v)
	}
	return v.principal, true
}

func (c *cache) put(key tokenKey, v verified) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.add(key, v)
}

func (c *cache) add(key tokenKey, v verified) {
	if c.size == 0 {
		return
	}
	if len(c.younger) >= (c.size+1)/2 {
		c.younger, c.older = map[tokenKey]verified{}, c.younger
	}
	c.younger[key] = v
}
