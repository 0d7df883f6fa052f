package backup

import (
	"fmt"
	"time"
)

// Moved is how far a dump, a check or a restore is: the details of its heartbeats.
type Moved struct {
	// Bytes went through: those of the archive as stored.
	Bytes int64 `json:"bytes"`
	// Tables were counted, of AllTables.
	Tables    int64 `json:"tables"`
	AllTables int64 `json:"allTables"`
	// BytesPerSecond is how fast bytes went through lately.
	BytesPerSecond float64 `json:"bytesPerSecond"`
}

// String is the same in words; empty before anything has moved.
func (m Moved) String() string {
	if m.Bytes == 0 && m.AllTables == 0 {
		return ""
	}
	words := Size(m.Bytes)
	if m.BytesPerSecond > 0 {
		words += " at " + Size(int64(m.BytesPerSecond)) + "/s"
	}
	if m.AllTables > 0 {
		words += fmt.Sprintf(", %d of %d tables counted", m.Tables, m.AllTables)
	}
	return words
}

// Pace reads a meter again and again. It is for one reader.
type Pace struct {
	meter *Meter
	read  time.Time
	last  Moved
}

// NewPace begins to read a meter.
func NewPace(meter *Meter, now time.Time) *Pace { return &Pace{meter: meter, read: now} }

// weight is how much the latest stretch counts in the rate: at a reading each two seconds, what was ten seconds ago
// counts for a sixth.
const weight = 0.3

// Read says how far the meter is. Moving reports whether it is further than at the reading before.
func (p *Pace) Read(now time.Time) (moved Moved, moving bool) {
	moved = Moved{Bytes: p.meter.Bytes.Load(), Tables: p.meter.Tables.Load(), AllTables: p.meter.AllTables.Load(), BytesPerSecond: p.last.BytesPerSecond}
	if stretch := now.Sub(p.read).Seconds(); stretch > 0 {
		rate := float64(moved.Bytes-p.last.Bytes) / stretch
		if p.last.Bytes == 0 { // the first stretch is all that is known
			moved.BytesPerSecond = rate
		}
		moved.BytesPerSecond += weight * (rate - moved.BytesPerSecond)
	}
	moving = moved.Bytes != p.last.Bytes || moved.Tables != p.last.Tables || moved.AllTables != p.last.AllTables
	p.last, p.read = moved, now
	return moved, moving
}

// Size is a number of bytes for people.
func Size(bytes int64) string {
	switch b := float64(bytes); {
	case b >= 1e9:
		return fmt.Sprintf("%.1f GB", b/1e9)
	case b >= 1e6:
		return fmt.Sprintf("%.1f MB", b/1e6)
	case b >= 1e3:
		return fmt.Sprintf("%.1f kB", b/1e3)
	}
	return fmt.Sprintf("%d B", bytes)
}
