package student

import (
	"time"
)

type studentOutput struct {
	ETag string `header:"ETag" doc:"Send it as If-Match to write over this version."`
	Body Student
}

type createdOutput struct {
	ETag     string `header:"ETag" doc:"Send it as If-Match to write over this version."`
	Location string `header:"Location"`
	Body     Student
}

type deletedOutput struct {
	ETag string `header:"ETag"`
}

type statisticsOutput struct{ Body Statistics }

type historyOutput struct{ Body History }

// History lists the writes of one student, the newest first.
type History struct {
	Content []HistoryEntry `json:"content" nullable:"false"`
}

// HistoryEntry is one write.
type HistoryEntry struct {
	Version   int64     `json:"version"`
	Action    Action    `json:"action" enum:"CREATED,UPDATED,STATUS_CHANGED,DELETED"`
	ChangedAt time.Time `json:"changedAt"`
	ChangedBy string    `json:"changedBy"`
	RequestID string    `json:"requestId"`
	Before    *Student  `json:"before,omitempty" doc:"Absent for the first write."`
	After     *Student  `json:"after,omitempty"`
}

func historyOf(entries []Entry, today Date) History {
	show := func(r *Record) *Student {
		if r == nil {
			return nil
		}
		student := present(*r, today)
		return &student
	}
	h := History{Content: make([]HistoryEntry, len(entries))}
	for i, e := range entries {
		h.Content[i] = HistoryEntry{Version: e.Version, Action: e.Action, ChangedAt: e.ChangedAt.UTC(), ChangedBy: e.ChangedBy,
			RequestID: e.RequestID, Before: show(e.Before), After: show(e.After)}
	}
	return h
}
