package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/school-sms/sms/internal/identity"
	"github.com/school-sms/sms/internal/standalone"
)

func newTokenCommand(g *globals) *cobra.Command {
	token := &cobra.Command{Use: "token", Short: "Make tokens for users and programs", Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	var user, role string
	var ttl time.Duration
	create := &cobra.Command{
		Use: "create", Short: "Sign a token with the platform's key and print it",
		Example: "  sms token create --user meera --role clerk --ttl 8h",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if user == "" {
				return usageError{fmt.Errorf("--user is missing: whom is the token for?")}
			}
			if !identity.Role(role).Valid() {
				return usageError{fmt.Errorf("--role %q: want one of %v", role, identity.Roles())}
			}
			if ttl <= 0 {
				return usageError{fmt.Errorf("--ttl %s: want a time above zero", ttl)}
			}
			signer, err := standalone.Layout{Root: g.dataDir}.Signer()
			if err != nil {
				return err
			}
			signed, err := signer.Sign(user, identity.Role(role), ttl)
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), signed)
			return nil
		},
	}
	create.Flags().StringVar(&user, "user", "", "whom the token speaks for")
	create.Flags().StringVar(&role, "role", "", fmt.Sprintf("what they may do: one of %v", identity.Roles()))
	create.Flags().DurationVar(&ttl, "ttl", time.Hour, "how long it is valid")
	token.AddCommand(create)
	return token
}
