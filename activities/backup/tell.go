package backup

import (
	"context"
	"sync"
	"time"

	"go.temporal.io/sdk/activity"

	"github.com/school-sms/sms/internal/backup"
	"github.com/school-sms/sms/internal/operation"
)

const (
	// tellFirst is how long an activity runs before it tells its workflow how far it is.
	tellFirst = 5 * time.Second
	// tellPart is the part of its time after which it tells again, so that the word is never much older than a tenth of the
	// time that it took, and the history of a dump of twelve hours grows by about a hundred signals.
	tellPart = 10
	// tellTimeout bounds one word. One that does not get through is dropped: the next says more.
	tellTimeout = 5 * time.Second
)

// teller tells a workflow how far its activity is, for the workflow's details.
type teller struct {
	began, last time.Time
	telling     sync.WaitGroup
}

// tell does so when it is time.
func (t *teller) tell(ctx context.Context, moved backup.Moved) {
	now, words := time.Now(), moved.String()
	pause := max(tellFirst, now.Sub(t.began)/tellPart)
	if words == "" || now.Sub(t.began) < tellFirst || now.Sub(t.last) < pause {
		return
	}
	t.last = now
	info := activity.GetInfo(ctx)
	c := activity.GetClient(ctx)
	t.telling.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, tellTimeout)
		defer cancel()
		_ = c.SignalWorkflow(ctx, info.WorkflowExecution.ID, info.WorkflowExecution.RunID, operation.MovedSignal, words)
	})
}

// end waits for words that are on their way.
func (t *teller) end() { t.telling.Wait() }
