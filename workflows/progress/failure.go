package progress

import (
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"

	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"

	"github.com/school-sms/sms/internal/operation"
)

// EndFailed records why the operation failed, or that it was cancelled, and returns err. A nil outcome keeps the last.
func (p *Progress) EndFailed(err error, outcome any) error {
	state, summary := operation.Failed, Sentence(Reason(err))
	if temporal.IsCanceledError(err) {
		state, summary = operation.Cancelled, "Cancelled."
		if n := len(p.steps); n > 0 {
			summary = "Cancelled at the step: " + p.steps[n-1].Name + "."
		}
	}
	if recordErr := p.End(state, summary, outcome); recordErr != nil {
		return errors.Join(err, recordErr)
	}
	return err
}

// Reason is why an activity or child workflow failed, in the words of the one who noticed.
func Reason(err error) string {
	if temporal.IsCanceledError(err) {
		return "cancelled"
	}
	if application, ok := errors.AsType[*temporal.ApplicationError](err); ok {
		return application.Message()
	}
	if timeout, ok := errors.AsType[*temporal.TimeoutError](err); ok {
		if timeout.TimeoutType() == enums.TIMEOUT_TYPE_HEARTBEAT {
			return "the worker that did it stopped answering, again and again"
		}
		return "it took too long"
	}
	if terminated, ok := errors.AsType[*temporal.TerminatedError](err); ok {
		return terminated.Error()
	}
	return err.Error()
}

// Sentence makes a reason start with a capital letter and end with a full stop.
func Sentence(reason string) string {
	first, size := utf8.DecodeRuneInString(reason)
	if size == 0 {
		return ""
	}
	return strings.TrimSuffix(string(unicode.ToUpper(first))+reason[size:], ".") + "."
}
