package rollout

import "testing"

func TestLastGood(t *testing.T) {
	t.Parallel()
	to := func(replaced, release string) Promotion { return Promotion{Release: release, Replaced: replaced} }
	back := func(replaced, release string) Promotion {
		return Promotion{Release: release, Replaced: replaced, Rollback: true}
	}
	for name, c := range map[string]struct {
		history       []Promotion
		current, want string
	}{
		"nothing is known":                       {nil, "a", ""},
		"after the first rollout":                {[]Promotion{to("a", "b")}, "b", "a"},
		"after the second":                       {[]Promotion{to("a", "b"), to("b", "c")}, "c", "b"},
		"never what was rolled back":             {[]Promotion{to("a", "b"), to("b", "c"), back("c", "b")}, "b", "a"},
		"nothing is left":                        {[]Promotion{to("a", "b"), back("b", "a")}, "a", ""},
		"rolled back, mended and released again": {[]Promotion{to("a", "b"), back("b", "a"), to("a", "b"), to("b", "c")}, "c", "b"},
		"another program was installed since":    {[]Promotion{to("a", "b")}, "x", "b"},
		"an old release anew":                    {[]Promotion{to("a", "b"), to("b", "a")}, "a", "b"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := LastGood(c.history, c.current); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}
