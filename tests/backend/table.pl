# Print the help of tables of commands, as Net::Remctl::Backend lays it out: JSON in, JSON out.
use strict;
use warnings;
use JSON::PP;
use Net::Remctl::Backend;

sub commands {
    my ($entries) = @_;
    my %table;
    for my $name (keys %{$entries}) {
        my %command = %{ $entries->{$name} };
        $command{nested} = commands($command{nested}) if $command{nested};
        $table{$name} = \%command;
    }
    return \%table;
}

my $tables = JSON::PP->new->decode(do { local $/ = undef; <STDIN> });
my @help;
for my $table (@{$tables}) {
    my %config = (commands => commands($table->{commands}));
    $config{command} = $table->{command} if defined $table->{command};
    $config{help_banner} = $table->{banner} if length $table->{banner};
    push @help, Net::Remctl::Backend->new(\%config)->help;
}
print JSON::PP->new->ascii->encode(\@help);
