package student

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
)

// logged is what the code under test has logged by the default logger, all tests together.
var logged logBuffer

type logBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// TestMain lets this binary be the consumer of TestReplay, too.
func TestMain(m *testing.M) {
	if address := os.Getenv("TEST_CONSUME_CHANGES"); address != "" {
		if err := consume(address); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	slog.SetDefault(slog.New(slog.NewJSONHandler(&logged, nil)))
	os.Exit(m.Run())
}

// replica is what the consumer keeps, in one file that is replaced in one step.
type replica struct {
	Next     string
	Students map[string]Student
	Versions map[string]int64
}

func loadReplica(file string) (replica, error) {
	r := replica{Students: map[string]Student{}, Versions: map[string]int64{}}
	raw, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	} else if err != nil {
		return r, err
	}
	return r, json.Unmarshal(raw, &r)
}

// apply takes a page over. A version that is not the next one was lost, or comes twice, or too early.
func (r *replica) apply(page ChangePage) error {
	for _, c := range page.Content {
		if r.Versions[c.StudentID]+1 != c.Version {
			return fmt.Errorf("%s: version %d comes after %d", c.StudentID, c.Version, r.Versions[c.StudentID])
		}
		r.Versions[c.StudentID] = c.Version
		if c.Student != nil {
			r.Students[c.StudentID] = *c.Student
		} else {
			delete(r.Students, c.StudentID)
		}
	}
	r.Next = page.Next
	return nil
}

// consume follows the feed at an address until it is killed or, when it is told so, until there is nothing new. It says
// each step that it is about to take, so that it can be killed there.
func consume(address string) error {
	file, untilEnd := os.Getenv("TEST_CONSUMER_FILE"), os.Getenv("TEST_CONSUMER_UNTIL_END") != ""
	for {
		r, err := loadReplica(file)
		if err != nil {
			return err
		}
		fmt.Println("ask")
		var page ChangePage
		if err := ask(fmt.Sprintf("%s?limit=%d&wait=1&after=%s", address, 1+rand.IntN(40), r.Next), &page); err != nil {
			return err
		}
		if untilEnd && len(page.Content) == 0 {
			return nil
		}
		fmt.Println("apply")
		if err := r.apply(page); err != nil {
			return err
		}
		raw, err := json.Marshal(r)
		if err != nil {
			return err
		}
		fmt.Println("write")
		if err := os.WriteFile(file+".new", raw, 0o600); err != nil {
			return err
		}
		fmt.Println("replace")
		if err := os.Rename(file+".new", file); err != nil {
			return err
		}
	}
}

func ask(url string, page *ChangePage) error {
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+os.Getenv("TEST_CONSUMER_TOKEN"))
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("the feed answers %s", res.Status)
	}
	return json.NewDecoder(res.Body).Decode(page)
}
