package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/school-sms/sms/api/student"
)

func newStudentCommand(g *globals) *cobra.Command {
	group := newGroup("student", "Answer people's requests about their personal data")
	erase := &cobra.Command{
		Use: "erase ID", Short: "Erase a student's personal data for good",
		Long: "Erase a student's personal data for good: the record, and what the history holds of it. Statistics stay as they are, and it\n" +
			"stays on record who erased which id, when and why. Backups that were made before hold the data until they are deleted.",
		Example: "  sms student erase STU-2026-00001 --reason 'asked for by the guardian, letter 17/2026'",
		Args:    usageArgs(cobra.ExactArgs(1)),
	}
	reason := erase.Flags().String("reason", "", "why, without any of the student's own data: it stays on record")
	confirm := erase.Flags().String("confirm", "", "the id again, for scripts; without it you are asked to type it")
	erase.RunE = func(cmd *cobra.Command, args []string) error {
		if strings.TrimSpace(*reason) == "" {
			return usageError{errors.New("--reason is missing: why is the student erased?")}
		}
		if !cmd.Flags().Changed("confirm") {
			typed, err := ask(cmd, fmt.Sprintf("%s will be erased for good, which nothing can undo. Type the id again: ", args[0]))
			if err != nil {
				return err
			}
			*confirm = typed
		}
		if *confirm != args[0] {
			return usageError{fmt.Errorf("the id was not confirmed: %q is not %s; nothing was erased", *confirm, args[0])}
		}
		var erased student.Erasure
		path := "/api/v1/students/" + url.PathEscape(args[0]) + "/erasure"
		if err := g.call(cmd.Context(), http.MethodPost, path, map[string]string{"confirm": *confirm, "reason": *reason}, &erased); err != nil {
			return err
		}
		return g.print(cmd, erased, func(t *table) {
			t.row(fmt.Sprintf("%s was erased at %s", erased.StudentID, when(erased.ErasedAt)))
		})
	}
	group.AddCommand(erase)
	return group
}

// ask reads the line that somebody types to a question.
func ask(cmd *cobra.Command, question string) (string, error) {
	fmt.Fprint(cmd.ErrOrStderr(), question)
	typed, err := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
	if err != nil && (!errors.Is(err, io.EOF) || typed == "") {
		fmt.Fprintln(cmd.ErrOrStderr())
		return "", usageError{errors.New("nobody has typed it: give it with --confirm; nothing was changed")}
	}
	return strings.TrimSpace(typed), nil
}
