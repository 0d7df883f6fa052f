package student

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/school-sms/sms/internal/postgres"
)

// asked is what a search by text means, said the slow way.
func asked(text string, r Record) bool {
	names := strings.Fields(strings.Join([]string{r.FirstName, r.LastName, r.GuardianName, r.MotherName}, " "))
	numbers := []string{r.Mobile, strings.Split(r.StudentID, "-")[2]}
	for _, word := range strings.Fields(text) {
		starts := func(term string) bool { return strings.HasPrefix(term, word) }
		misspelt := func(name string) bool { return max(len(name), len(word)) >= 4 && oneTypo(name, word) }
		if !slices.ContainsFunc(names, starts) && !slices.ContainsFunc(numbers, starts) && !slices.ContainsFunc(names, misspelt) &&
			!oneTypo(r.Mobile, word) {
			return false
		}
	}
	return true
}

// oneTypo is whether one word becomes the other by at most one letter left out, added, replaced or swapped with its neighbour.
func oneTypo(a, b string) bool {
	if len(a) > len(b) {
		a, b = b, a
	}
	i := 0
	for i < len(a) && a[i] == b[i] {
		i++
	}
	if len(a) < len(b) {
		return a[i:] == b[i+1:]
	}
	swapped := i+1 < len(a) && a[i] == b[i+1] && a[i+1] == b[i] && a[i+2:] == b[i+2:]
	return i == len(a) || a[i+1:] == b[i+1:] || swapped
}

// edits lists every word that one typo makes of a word.
func edits(word, letters string) (out []string) {
	for i := range len(word) + 1 {
		letter := string(letters[rand.IntN(len(letters))])
		out = append(out, word[:i]+letter+word[i:])
		if i < len(word) {
			out = append(out, word[:i]+word[i+1:], word[:i]+letter+word[i+1:])
		}
		if i+1 < len(word) {
			out = append(out, word[:i]+word[i+1:i+2]+word[i:i+1]+word[i+2:])
		}
	}
	return out
}

func (f fixture) store() *Store { return NewStore(postgres.NewDB(f.pool)) }

// Names of three letters' alphabet are near to each other, so that every rule has cases on both sides.
func TestTextFindsWhatItMeans(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	const alphabet, digits = "abc", "0123456789"
	word := func(letters string, least, most int) string {
		var b strings.Builder
		for range least + rand.IntN(most-least+1) {
			b.WriteByte(letters[rand.IntN(len(letters))])
		}
		return b.String()
	}
	store, everybody := f.store(), []Record{}
	for range 60 {
		d := Details{FirstName: word(alphabet, 2, 6), LastName: word(alphabet, 2, 6), GuardianName: word(alphabet, 2, 5) + " " + word(alphabet, 3, 9),
			MotherName: word(alphabet, 4, 6), Mobile: word(digits, 10, 10), DateOfBirth: Date{2015, 1, 1}}
		id, err := store.NewID(t.Context(), 2026, false)
		if err != nil {
			t.Fatal(err)
		}
		record, err := store.Create(t.Context(), f.db(), id, d, false, Author{})
		if err != nil {
			t.Fatal(err)
		}
		everybody = append(everybody, record)
	}
	texts := []string{"c", "00012", "0001"}
	for _, r := range everybody[:2] {
		for name := range strings.FieldsSeq(strings.Join([]string{r.FirstName, r.LastName, r.GuardianName, r.MotherName}, " ")) {
			texts = append(texts, edits(name, alphabet)...)
		}
		texts = append(texts, edits(r.Mobile, digits)...)
		texts = append(texts, r.Mobile, r.Mobile[:4], r.FirstName+" "+r.Mobile[:3], edits(r.LastName, alphabet)[0]+" "+r.FirstName[:2])
	}
	for range 40 {
		texts = append(texts, word(alphabet, 1, 8), word(alphabet, 2, 5)+" "+word(alphabet, 2, 5))
	}
	for _, text := range texts {
		found, total, err := store.Search(t.Context(), Filter{Text: text}, Order{byRelevance, true}, 0, 100)
		if err != nil {
			t.Fatal(err)
		}
		var got, want []string
		for _, r := range found {
			got = append(got, r.StudentID)
		}
		for _, r := range everybody {
			if asked(text, r) {
				want = append(want, r.StudentID)
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, want) || total != int64(len(want)) {
			t.Errorf("%q finds %v, %d in all, want %v", text, got, total, want)
		}
	}
}
