package identity

import "fmt"

// Reason says in a word why a token is refused. There are no others than these, so that refusals can be counted by them.
type Reason string

// The reasons.
const (
	NoToken        Reason = "missing"
	Malformed      Reason = "malformed"        // not a token, too long, or with a header that must be understood and is not
	UnknownIssuer  Reason = "unknown-issuer"   // signed by nobody who is known here
	BadAlgorithm   Reason = "bad-algorithm"    // none, a shared secret, or one that its issuer does not use
	UnknownKey     Reason = "unknown-key"      // its key is not, or no longer, one of its issuer's, or of another kind
	BadSignature   Reason = "bad-signature"    // somebody else made it, or changed it
	Expired        Reason = "expired"          // by more than the skew of clocks
	NotYetValid    Reason = "not-yet-valid"    // from the future by more than the skew of clocks
	WrongAudience  Reason = "wrong-audience"   // meant for another program
	MissingClaims  Reason = "missing-claims"   // without an end, a user or a role that counts here
	KeysAway       Reason = "keys-away"        // its issuer's keys have not been had yet: a good token may be refused
	TooManyWaiting Reason = "too-many-waiting" // its key would have to be fetched, and too many wait for that already
)

// Refusal is why a token is not taken. Its text is for the caller, and holds nothing of the token.
type Refusal struct {
	Reason Reason
	// Temporary says that the same token may be taken later.
	Temporary bool
	// cause is for logs: it may name keys and algorithms, but no content of the token.
	cause error
}

func (r *Refusal) Error() string {
	switch r.Reason {
	case Expired:
		return "the token has expired"
	case MissingClaims:
		return "the token names no user or no known role, or has no end"
	case KeysAway, TooManyWaiting:
		return "the keys of the token's issuer cannot be had for now, try again"
	case NoToken:
		return "send a token: Authorization: Bearer <token>"
	}
	return "the token is not valid here"
}

// Unwrap is what lies behind it, if anything.
func (r *Refusal) Unwrap() error { return r.cause }

func refuse(reason Reason, format string, args ...any) *Refusal {
	return &Refusal{Reason: reason, Temporary: reason == KeysAway || reason == TooManyWaiting, cause: fmt.Errorf(format, args...)}
}
