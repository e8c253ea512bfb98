#!/usr/bin/perl
# A client on Net::Remctl that does what it is told, line by line.  Words and data are in hexadecimal, "-" if empty.
#
#     open HOST PORT PRINCIPAL     ->  ok
#     run WORD...                  ->  output STREAM DATA (any number), then status NUMBER or error CODE TEXT
#     noop                         ->  ok
#
# What goes wrong is answered with: failed TEXT
use strict;
use warnings;

use Net::Remctl ();

$| = 1;

sub shown { my ($data) = @_; return defined($data) && length($data) ? unpack('H*', $data) : '-' }
sub meant { my ($text) = @_; return $text eq '-' ? '' : pack('H*', $text) }

my $remctl = Net::Remctl->new;

sub failed { print 'failed ', shown($remctl->error), "\n"; return }

sub run {
    my @words = @_;
    $remctl->command(@words) or return failed();
    while (my $token = $remctl->output) {
        my $type = $token->type;
        if ($type eq 'output') {
            print 'output ', $token->stream, ' ', shown($token->data), "\n";
        } elsif ($type eq 'status') {
            print 'status ', $token->status, "\n";
            return;
        } else {
            print "$type ", $token->error, ' ', shown($token->data), "\n";
            return;
        }
    }
    return failed();
}

while (my $line = <STDIN>) {
    chomp $line;
    my ($what, @words) = split / /, $line;
    if ($what eq 'open') {
        $remctl->open(@words) ? print "ok\n" : failed();
    } elsif ($what eq 'run') {
        run(map { meant($_) } @words);
    } elsif ($what eq 'noop') {
        $remctl->noop ? print "ok\n" : failed();
    }
}
