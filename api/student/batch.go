package student

import (
	"context"
	"sync"
	"time"
)

// batches answers questions that arrive together with one round trip to the database. One batch is on its way at a time, and what
// comes meanwhile makes the next: smaller batches at the same time would cost more in all. A question is never answered by a batch
// that was sent before it came.
type batches[Q, A any] struct {
	// most questions in one batch.
	most int
	// ask answers each question, in their order.
	ask func(context.Context, []Q) ([]A, error)

	mu      sync.Mutex
	waiting []*waiter[Q, A]
	// underway counts the batches that were sent, and quick those of them that are not slow yet: one at most.
	underway, quick int
}

type waiter[Q, A any] struct {
	ctx      context.Context
	question Q
	answer   A
	err      error
	done     chan struct{}
}

const (
	// slowBatch is how long a batch holds up the next: a connection that hangs must not stop those that do not.
	slowBatch = 20 * time.Millisecond
	// batchesAtOnce is the most batches on their way when they are slow.
	batchesAtOnce = 4
	// batchTimeout ends a batch whose connection is silently gone; where the database still answers, its statement timeout does.
	batchTimeout = 20 * time.Second
)

// do answers one question. The caller may go away at any time without harm to the others of the batch.
func (b *batches[Q, A]) do(ctx context.Context, question Q) (A, error) {
	w := &waiter[Q, A]{ctx: ctx, question: question, done: make(chan struct{})}
	b.mu.Lock()
	b.waiting = append(b.waiting, w)
	b.start()
	b.mu.Unlock()
	select {
	case <-w.done:
		return w.answer, w.err
	case <-ctx.Done():
		var none A
		return none, ctx.Err()
	}
}

// start sends what waits, unless a batch is on its way that is likely to be back soon. b.mu is held.
func (b *batches[Q, A]) start() {
	if len(b.waiting) > 0 && b.quick == 0 && b.underway < batchesAtOnce {
		b.underway++
		b.quick++
		go b.run()
	}
}

// run sends batches until nobody waits, or until one was slow and others have taken over.
func (b *batches[Q, A]) run() {
	for {
		batch := b.next()
		if len(batch) == 0 {
			return
		}
		slow := time.AfterFunc(slowBatch, func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.quick--
			b.start()
		})
		b.send(batch)
		if !slow.Stop() {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.underway--
			b.start()
			return
		}
	}
}

// next takes the questions that go together, without those whose callers have gone.
func (b *batches[Q, A]) next() []*waiter[Q, A] {
	b.mu.Lock()
	defer b.mu.Unlock()
	var batch []*waiter[Q, A]
	taken := 0
	for _, w := range b.waiting {
		if len(batch) == b.most {
			break
		}
		if taken++; w.ctx.Err() == nil {
			batch = append(batch, w)
		}
	}
	rest := copy(b.waiting, b.waiting[taken:])
	clear(b.waiting[rest:])
	b.waiting = b.waiting[:rest]
	if len(batch) == 0 {
		b.underway--
		b.quick--
	}
	return batch
}

func (b *batches[Q, A]) send(batch []*waiter[Q, A]) {
	ctx, cancel := context.WithTimeout(context.Background(), batchTimeout)
	defer cancel()
	questions := make([]Q, len(batch))
	for i, w := range batch {
		questions[i] = w.question
	}
	answers, err := b.ask(ctx, questions)
	for i, w := range batch {
		if w.err = err; err == nil {
			w.answer = answers[i]
		}
		close(w.done)
	}
}
