package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"konsul.dev/tools/lab/internal/compose"
	"konsul.dev/tools/lab/internal/edge"
	"konsul.dev/tools/lab/internal/images"
)

// Defaults of the lab in containers, relative to the repository's root.
const (
	composeDir     = ".compose-lab"
	composeFile    = "compose/docker-compose.yml"
	composeProject = "konsul"
	composeTimeout = 180 * time.Second
)

func composeLab() *cobra.Command {
	var dir, file, project string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:     "compose",
		Short:   "Run the federation in containers with docker-compose",
		Example: "  konsul-lab images\n  konsul-lab compose up\n  konsul-lab compose cut us-west",
	}
	flags := cmd.PersistentFlags()
	flags.StringVar(&dir, "dir", composeDir, "folder for secrets and env files")
	flags.StringVar(&file, "file", composeFile, "path of docker-compose.yml")
	flags.StringVar(&project, "project", composeProject, "name of the docker-compose project")
	flags.DurationVar(&timeout, "timeout", composeTimeout, "give up when the lab is not ready after this time")
	open := func(cmd *cobra.Command) (*compose.Lab, error) {
		abs, err := filepath.Abs(dir)
		if err != nil {
			return nil, fmt.Errorf("find --dir: %w", err)
		}
		bin, err := programs("")
		if err != nil {
			return nil, err
		}
		return compose.New(compose.Options{
			Dir: abs, File: file, Project: project, Timeout: timeout, Connect: edge.Connect, Bin: bin,
			Lookup: os.Getenv, Out: cmd.OutOrStdout(), Err: cmd.ErrOrStderr(),
		}), nil
	}
	for _, v := range []struct {
		use, short string
		args       cobra.PositionalArgs
		do         func(*compose.Lab, context.Context, []string) error
	}{
		{
			"up", "Start the containers and stay in front until Ctrl-C", cobra.NoArgs,
			func(l *compose.Lab, ctx context.Context, _ []string) error { return l.Up(ctx) },
		},
		{
			"down", "Remove containers, networks, volumes and files of a lab", cobra.NoArgs,
			func(l *compose.Lab, ctx context.Context, _ []string) error { return l.Down(ctx) },
		},
		{
			"cut DATACENTER", "Take a datacenter off the WAN network", cobra.ExactArgs(1),
			func(l *compose.Lab, ctx context.Context, args []string) error { return l.Cut(ctx, args[0]) },
		},
		{
			"mend DATACENTER", "Join a cut datacenter to the WAN network again", cobra.ExactArgs(1),
			func(l *compose.Lab, ctx context.Context, args []string) error { return l.Mend(ctx, args[0]) },
		},
		{
			"kill DATACENTER", "Kill a datacenter's containers at once; its volumes stay", cobra.ExactArgs(1),
			func(l *compose.Lab, ctx context.Context, args []string) error { return l.Kill(ctx, args[0]) },
		},
		{
			"start DATACENTER", "Start a killed datacenter's containers and wait until it serves", cobra.ExactArgs(1),
			func(l *compose.Lab, ctx context.Context, args []string) error { return l.Start(ctx, args[0]) },
		},
	} {
		cmd.AddCommand(&cobra.Command{
			Use: v.use, Short: v.short, Args: v.args, Example: "  konsul-lab compose " + v.use,
			RunE: func(cmd *cobra.Command, args []string) error {
				lab, err := open(cmd)
				if err != nil {
					return err
				}
				return v.do(lab, cmd.Context(), args)
			},
		})
	}
	return cmd
}

func buildImages() *cobra.Command {
	var o images.Options
	cmd := &cobra.Command{
		Use:     "images",
		Short:   "Build one container image per service from static programs",
		Example: "  konsul-lab images --bin bin/static --tag latest",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Out = cmd.OutOrStdout()
			return images.Build(cmd.Context(), o)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.Bin, "bin", "bin/static", "folder of the static programs")
	flags.StringVar(&o.Dockerfile, "dockerfile", "deploy/images/Dockerfile", "the recipe")
	flags.StringVar(&o.Tag, "tag", "latest", "tag of the images")
	return cmd
}
