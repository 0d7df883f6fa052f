package identity

import (
	"fmt"
	"sync"
	"testing"
	"time"
)

func newPair(t *testing.T, cache int) (*Signer, *Verifier) {
	t.Helper()
	private, public, err := NewKeyPair()
	if err != nil {
		t.Fatal(err)
	}
	signer, err := NewSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := NewVerifier(Config{PublicKey: string(public), TokenCache: cache})
	if err != nil {
		t.Fatal(err)
	}
	return signer, verifier
}

func sign(t *testing.T, s *Signer, user string, ttl time.Duration) string {
	t.Helper()
	token, err := s.Sign(user, Clerk, ttl)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestRememberedTokenExpiresLikeAFreshOne(t *testing.T) {
	t.Parallel()
	signer, remembering := newPair(t, 10)
	forgetful := &Verifier{authorities: remembering.authorities, unverified: remembering.unverified, verified: newCache(0), now: remembering.now}
	token := sign(t, signer, "asha", time.Minute)
	signed := time.Now()
	for _, after := range []time.Duration{0, time.Minute, time.Minute + leeway - 2*time.Second, time.Minute + leeway, time.Hour} {
		remembering.now = func() time.Time { return signed.Add(after) } // the parser's clock too
		want, wantErr := forgetful.Verify(t.Context(), token)
		got, err := remembering.Verify(t.Context(), token)
		if got != want || (err == nil) != (wantErr == nil) {
			t.Errorf("%s after: remembered %v %v, fresh %v %v", after, got, err, want, wantErr)
		}
		if good := after < time.Minute+leeway; good != (err == nil) {
			t.Errorf("%s after: %v", after, err)
		}
	}
}

func TestOnlyGoodTokensAreRemembered(t *testing.T) {
	t.Parallel()
	signer, verifier := newPair(t, 10)
	stranger, _ := newPair(t, 0)
	token := sign(t, signer, "asha", time.Hour)
	bad := []string{"", "x", token + "A", token[:len(token)-3] + "AAA", sign(t, stranger, "asha", time.Hour)}
	for range 2 {
		for _, token := range bad {
			if p, err := verifier.Verify(t.Context(), token); err == nil || p != (Principal{}) {
				t.Errorf("accepted %q as %v", token, p)
			}
		}
	}
	if n := len(verifier.verified.younger); n != 0 {
		t.Errorf("%d tokens remembered", n)
	}
	if p, err := verifier.Verify(t.Context(), token); err != nil || p != (Principal{"asha", Clerk}) {
		t.Errorf("%v %v", p, err)
	}
	for _, token := range bad {
		if _, err := verifier.Verify(t.Context(), token); err == nil {
			t.Errorf("accepted %q once a good one was remembered", token)
		}
	}
}

func TestMemoryOfTokensIsBounded(t *testing.T) {
	t.Parallel()
	const size = 10
	signer, verifier := newPair(t, size)
	used := sign(t, signer, "used", time.Hour)
	var wg sync.WaitGroup
	for i := range 4 * size {
		user := fmt.Sprint("user", i)
		token := sign(t, signer, user, time.Hour)
		wg.Go(func() {
			for range 3 {
				if p, err := verifier.Verify(t.Context(), token); err != nil || p.User != user {
					t.Errorf("%v %v", p, err)
				}
			}
		})
	}
	wg.Wait()
	if n := len(verifier.verified.younger) + len(verifier.verified.older); n > size {
		t.Errorf("%d tokens remembered, at most %d wanted", n, size)
	}
	for i := range 4 * size { // one that is used stays while others come and go
		for _, token := range []string{used, sign(t, signer, fmt.Sprint("other", i), time.Hour)} {
			if _, err := verifier.Verify(t.Context(), token); err != nil {
				t.Fatal(err)
			}
		}
		if _, there := verifier.verified.get(keyOf(used), time.Now()); !there {
			t.Fatal("a token in use was forgotten")
		}
	}
}

func TestNoMemoryOfTokens(t *testing.T) {
	t.Parallel()
	signer, verifier := newPair(t, 0)
	token := sign(t, signer, "asha", time.Hour)
	for range 2 {
		if _, err := verifier.Verify(t.Context(), token); err != nil {
			t.Error(err)
		}
	}
	if n := len(verifier.verified.younger); n != 0 {
		t.Errorf("%d tokens remembered", n)
	}
}

func BenchmarkVerify(b *testing.B) {
	private, public, err := NewKeyPair()
	if err != nil {
		b.Fatal(err)
	}
	signer, err := NewSigner(private)
	if err != nil {
		b.Fatal(err)
	}
	token, err := signer.Sign("asha", Clerk, time.Hour)
	if err != nil {
		b.Fatal(err)
	}
	for name, size := range map[string]int{"known": 10, "new": 0} {
		b.Run(name, func(b *testing.B) {
			v, err := NewVerifier(Config{PublicKey: string(public), TokenCache: size})
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.Verify(b.Context(), token); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
