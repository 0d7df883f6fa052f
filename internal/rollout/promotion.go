package rollout

import (
	"slices"
	"time"
)

// Promotion is a release that has become the stable one of a service, at the end of a rollout that went well.
type Promotion struct {
	// Operation is the id of the rollout.
	Operation   string `json:"operation"`
	Environment string `json:"environment"`
	Service     string `json:"service"`
	// Release is the digest of the release, Replaced that of the one before it.
	Release  string `json:"release"`
	Replaced string `json:"replaced"`
	// Rollback says that Replaced was not good after all.
	Rollback   bool      `json:"rollback"`
	PromotedBy string    `json:"promotedBy"`
	PromotedAt time.Time `json:"promotedAt"`
}

// LastGood is the release to go back to from the current one: the newest that was stable before it and was not rolled back since. The
// history begins with the oldest. Empty when there is none. A release that failed its rollout is in no history.
func LastGood(history []Promotion, current string) string {
	var good []string // the newest last
	drop := func(release string) {
		good = slices.DeleteFunc(good, func(r string) bool { return r == release })
	}
	for _, p := range history {
		switch {
		case p.Rollback:
			drop(p.Replaced)
		case !slices.Contains(good, p.Replaced): // it was installed, by no rollout
			good = append(good, p.Replaced)
		}
		drop(p.Release)
		good = append(good, p.Release)
	}
	if drop(current); len(good) == 0 {
		return ""
	}
	return good[len(good)-1]
}
