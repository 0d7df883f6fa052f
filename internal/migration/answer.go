package migration

// Command is the first argument of a service's program that makes it look at its database's schema, or change it, instead of serving. One
// flag follows: PlanFlag changes nothing, the others run the pending migrations of a kind. The program writes an Answer in JSON and ends.
const (
	Command  = "migrate"
	PlanFlag = "--plan"
)

// Flag is what runs the migrations of a kind.
func Flag(kind Kind) string { return "--" + string(kind) }

// Answer is a Plan, which may have nothing in it, or why there is none.
type Answer struct {
	Plan  *Plan  `json:"plan,omitempty"`
	Error string `json:"error,omitempty"`
	// Unavailable says that the database could not be reached: it may be tried again.
	Unavailable bool `json:"unavailable,omitempty"`
}
