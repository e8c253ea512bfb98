#!/usr/bin/perl
# /// job
# description = "Report the largest file in a folder (Perl)."
# run-time = 60
#
# [parameters.folder]
# type = "text"
# default = "/var/log"
# ///
#
# Finds the largest file in a folder, and reports it; with the modules alone that come with Perl.
use strict;
use warnings;

use HTTP::Tiny;
use MIME::Base64 qw(encode_base64);

# Report how the job has ended; dies if that does not arrive.
sub report {
    my ($success, $text) = @_;

    # As base64 the text arrives whatever is in it, and nothing has to be escaped for XML.
    my $information = encode_base64($text);
    my $call = <<"END";
<?xml version='1.0'?>
<methodCall><methodName>postInformation</methodName><params>
<param><value><int>$ENV{JOB_ID}</int></value></param>
<param><value><boolean>$success</boolean></value></param>
<param><value><base64>$information</base64></value></param>
</params></methodCall>
END
    my $account = encode_base64("$ENV{JOB_ACCOUNT}:$ENV{JOB_PASSWORD}", '');
    my %headers = ('Content-Type' => 'text/xml', 'Authorization' => "Basic $account");
    my $answer = HTTP::Tiny->new(timeout => 30)
        ->post($ENV{JOB_REPORT_URL}, { headers => \%headers, content => $call });

    # A fault comes with status 200, too; a 0 says that the report came too late.
    $answer->{success} && $answer->{content} =~ m{<boolean>1</boolean>}
        or die "not reported: $answer->{status} $answer->{content}\n";
}

# Return the size and the name of the largest file.
sub largest {
    my ($folder) = @_;
    opendir(my $handle, $folder) or die "$folder: $!\n";
    my %size = map { $_ => -s "$folder/$_" } grep { !-l "$folder/$_" && -f _ } readdir $handle;
    my ($name) = sort { $size{$b} <=> $size{$a} } keys %size;
    die "there is no file in $folder\n" unless defined $name;
    return "$size{$name} bytes: $name";
}

my $text = eval { largest($ENV{JOB_PARAM_FOLDER}) };
my $success = defined $text ? 1 : 0;
if (!$success) {
    chomp($text = $@);
}
report($success, $text);
exit($success ? 0 : 1);
