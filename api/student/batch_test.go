package student

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// await waits until the state of the batches is as wanted.
func (b *batches[Q, A]) await(t *testing.T, wanted func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; <-time.After(time.Millisecond) {
		b.mu.Lock()
		reached := wanted()
		b.mu.Unlock()
		if reached {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d batches under way, %d quick, %d questions waiting", b.underway, b.quick, len(b.waiting))
		}
	}
}

func (b *batches[Q, A]) idle(t *testing.T) {
	t.Helper()
	b.await(t, func() bool { return b.underway == 0 && b.quick == 0 && len(b.waiting) == 0 })
}

func TestBatchesAnswerTheirOwnQuestionsAndNoEarlierOnes(t *testing.T) {
	t.Parallel()
	const callers, each, most = 40, 200, 7
	var clock, sent atomic.Int64
	type answer struct{ question, at int64 }
	b := &batches[int64, answer]{most: most, ask: func(_ context.Context, questions []int64) ([]answer, error) {
		sent.Add(1)
		if len(questions) == 0 || len(questions) > most {
			t.Errorf("%d questions in one batch", len(questions))
		}
		at := clock.Load()
		answers := make([]answer, len(questions))
		for i, q := range questions {
			answers[i] = answer{q, at}
		}
		return answers, nil
	}}
	var wg sync.WaitGroup
	for caller := range int64(callers) {
		wg.Go(func() {
			for i := range int64(each) {
				asked, question := clock.Add(1), caller*each+i
				got, err := b.do(t.Context(), question)
				if err != nil || got.question != question || got.at < asked {
					t.Errorf("question %d at %d: answer %+v, %v", question, asked, got, err)
				}
			}
		})
	}
	wg.Wait()
	b.idle(t)
	if n := sent.Load(); n < callers*each/most || n > callers*each {
		t.Errorf("%d batches", n)
	}
}

func TestFailedBatchFailsForAllInIt(t *testing.T) {
	t.Parallel()
	fault, held, release := errors.New("away"), make(chan struct{}, 1), make(chan struct{})
	b := &batches[int, int]{most: 64, ask: func(context.Context, []int) ([]int, error) {
		select {
		case held <- struct{}{}:
		default: // not the first batch
		}
		<-release
		return nil, fault
	}}
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() {
			if _, err := b.do(t.Context(), i); !errors.Is(err, fault) {
				t.Errorf("caller %d: %v", i, err)
			}
		})
	}
	<-held
	close(release)
	wg.Wait()
	b.idle(t)
}

func TestCallerMayLeave(t *testing.T) {
	t.Parallel()
	held, release := make(chan struct{}), make(chan struct{})
	var questions [][]int
	b := &batches[int, int]{most: 64}
	b.ask = func(ctx context.Context, asked []int) ([]int, error) {
		if questions = append(questions, asked); len(questions) == 1 {
			held <- struct{}{}
			<-release
		}
		return asked, ctx.Err()
	}
	gone, leave := context.WithCancel(t.Context())
	left, stays := make(chan error), make(chan error)
	go func() { _, err := b.do(gone, 1); left <- err }()
	<-held
	b.mu.Lock() // the batch is on its way: nobody else may start one while the rest of the test arranges itself
	b.quick++
	b.mu.Unlock()
	go func() { _, err := b.do(gone, 2); left <- err }()
	go func() { _, err := b.do(t.Context(), 3); stays <- err }()
	b.await(t, func() bool { return len(b.waiting) == 2 })
	leave()
	for range 2 {
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Errorf("who leaves gets %v", err)
		}
	}
	b.mu.Lock()
	b.quick--
	b.mu.Unlock()
	close(release)
	if err := <-stays; err != nil {
		t.Errorf("who stays gets %v", err)
	}
	b.idle(t)
	if len(questions) != 2 || len(questions[1]) != 1 || questions[1][0] != 3 {
		t.Errorf("asked %v, want 1, then 3 alone", questions)
	}
}

func TestHangingBatchHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	b := &batches[int, int]{most: 1, ask: func(_ context.Context, questions []int) ([]int, error) {
		if questions[0] < batchesAtOnce-1 {
			<-release
		}
		return questions, nil
	}}
	hung := make(chan error, batchesAtOnce)
	var wg sync.WaitGroup
	for i := range batchesAtOnce - 1 {
		go func() { _, err := b.do(t.Context(), i); hung <- err }()
	}
	for i := range 50 {
		wg.Go(func() {
			if got, err := b.do(t.Context(), batchesAtOnce+i); err != nil || got != batchesAtOnce+i {
				t.Errorf("%d %v", got, err)
			}
		})
	}
	wg.Wait() // while the first ones hang
	close(release)
	for range batchesAtOnce - 1 {
		if err := <-hung; err != nil {
			t.Error(err)
		}
	}
	b.idle(t)
}
